import torch

from recloom.dataset import Segments
from recloom.models import TrainingData
from recloom.models.cooccurrence import cooccurrence_vectors


def vectors_of(dataset, width=4):
    offsets = dataset.user_offsets
    return cooccurrence_vectors(TrainingData(dataset, Segments(offsets[:-1], offsets[1:])), width)


def test_items_taken_together_are_near_each_other_and_others_are_not(dataset_of):
    log = [f"u{u},{'a' if u % 2 else 'c'}{step},{step}" for u in range(20) for step in (1, 2)]
    dataset = dataset_of([*log, "alone,z,1"])
    vectors = vectors_of(dataset)
    row = dataset.items.index_of
    unit = torch.nn.functional.normalize(vectors, dim=1)
    assert float(unit[row("a1")] @ unit[row("a2")]) > 0.9
    assert abs(float(unit[row("a1")] @ unit[row("c2")])) < 0.1
    assert vectors[row("z")].abs().sum() == 0  # never beside another
    assert vectors[0].abs().sum() == 0


def test_a_log_without_pairs_gives_nothing_to_start_from(dataset_of):
    assert vectors_of(dataset_of(["u1,a,1", "u2,b,2"])).abs().sum() == 0


def test_users_do_not_run_into_each_other(dataset_of):
    dataset = dataset_of([f"u{u},{'x' if u % 2 else 'y'},1" for u in range(10)])
    assert vectors_of(dataset).abs().sum() == 0
