"""Two processes that train together over gloo, against one that trains by itself."""

import dataclasses
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from recloom.dataset import Dataset, Segments, gather
from recloom.models import MODELS, Ranker, TrainingData, gathered_lists
from recloom.models import item_vectors as tables
from recloom.training import TrainingConfig, train
from recloom.workers import ALONE, Group
from tests.conftest import fake_text

# Processes are forked from one that has imported everything, which takes seconds, and has no threads.
multiprocessing.set_forkserver_preload([__name__])
# Four directions of text: of more, the few items have next to nothing, and AdamW makes steps of rounding errors.
# With dropout, and with negatives that are drawn, every worker's chance is its own; without them all is determined.
DETERMINED = {
    "embedding_dim": 8,
    "hidden_dim": 8,
    "text_dim": 4,
    "dropout": 0.0,
    "id_dropout": 0.0,
    "request_dropout": 0.0,
}
CONFIG = TrainingConfig(epochs=3, batch_size=64, patience=10)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in another order differ in the last bit, which AdamW makes much of where a gradient is all but zero."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(dataset, workers, config=CONFIG, checkpoint=None, **options):
    """Return a model trained for a few epochs, with the result and the lists that the workers gathered last."""
    torch.manual_seed(workers.rank)  # others begin where the one that leads does
    weave = MODELS["weave"]
    model = weave(weave.Config(**DETERMINED, num_negatives=0, **options), dataset, fake_text(dataset))
    data = TrainingData(dataset, Segments(dataset.user_offsets[:-1], dataset.user_offsets[1:]))
    model.prepare(data)
    asked = gather(dataset, dataset.user_offsets[1:-1], dataset.user_offsets[1:-1] + 5, 8)
    lists = []

    def validate():
        lists.append(gathered_lists(model, asked, 5, True, workers))
        # Ever better, also where a run goes on for more epochs: `train` keeps the last one, and what it ranked here is
        # what the model ranks when it is whole again.
        return float(100 * config.epochs + len(lists))

    result = train(model, data, config, validate=validate, checkpoint=checkpoint, key="a", workers=workers)
    if workers.is_lead:
        np.testing.assert_array_equal(Ranker(model).rank(asked, 5, True).item_index_BK, lists[-1])
    return model, result, lists


def as_tensors(model, result):
    return model.state_dict() | {f"moments.{name}": value for name, value in result.moments.items()}


def _work(rank, size, folder, dataset_path, config, checkpoint, options, large):
    torch.set_num_threads(1)
    tables.LARGE_CATALOGUE = 2 if large else tables.LARGE_CATALOGUE
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    model, result, lists = trained(Dataset(Path(dataset_path)), Group(), config, checkpoint, **options)
    if rank == 0:
        torch.save((as_tensors(model, result), result.curve, lists), f"{folder}/result")
    dist.destroy_process_group()


@pytest.fixture
def together(cycle_dataset, tmp_path):
    """Train with several workers; return tensors, curve and lists of the one that leads."""

    def start(size, config=CONFIG, checkpoint=None, large=False, **options):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        arguments = (size, folder, str(cycle_dataset.path), config, checkpoint, options, large)
        mp.start_processes(_work, arguments, nprocs=size, start_method="forkserver")
        return torch.load(folder / "result", weights_only=False)

    return start


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        # A moment is a mean of gradients that nearly cancel, of which rounding is a larger share.
        atol, rtol = (3e-4, 2e-3) if name.startswith("moments.") else (2e-5, 2e-4)
        torch.testing.assert_close(theirs[name], tensor, atol=atol, rtol=rtol, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("shard_items", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_two_workers_learn_what_one_does(cycle_dataset, together, monkeypatch, shard_items, large):
    if large:  # the table is updated by the rows in use
        monkeypatch.setattr(tables, "LARGE_CATALOGUE", 2)
    model, result, lists = trained(cycle_dataset, ALONE)
    tensors, curve, their_lists = together(2, dataclasses.replace(CONFIG, shard_items=shard_items), large=large)
    assert_equal(as_tensors(model, result), tensors)
    assert [e.loss for e in curve] == pytest.approx([e.loss for e in result.curve], rel=1e-4)
    np.testing.assert_array_equal(np.stack(their_lists), np.stack(lists))


@pytest.mark.parametrize("fusion", ["id", "text", "gated", "concat", "separate", "likeness"])
def test_tables_can_be_dealt_out_whatever_they_are_woven_from(cycle_dataset, together, fusion):
    model, result, _ = trained(cycle_dataset, ALONE, fusion=fusion)
    tensors, _, _ = together(3, dataclasses.replace(CONFIG, shard_items=True), fusion=fusion)
    assert_equal(as_tensors(model, result), tensors)


@pytest.mark.parametrize(("before", "after"), [(2, 3), (2, 1), (1, 2)])
@pytest.mark.parametrize("shard_items", [False, True])
def test_a_run_goes_on_with_another_number_of_workers(cycle_dataset, together, tmp_path, before, after, shard_items):
    checkpoint = tmp_path / "state" / "checkpoint"
    config = dataclasses.replace(CONFIG, shard_items=shard_items)
    together(before, dataclasses.replace(config, epochs=2), checkpoint)
    tensors, curve, _ = together(after, config, checkpoint)
    whole, result, _ = trained(cycle_dataset, ALONE)
    assert len(curve) == 3
    assert_equal(as_tensors(whole, result), tensors)


def test_a_group_of_one_is_a_process_by_itself_bit_for_bit(cycle_dataset, together):
    model, result, _ = trained(cycle_dataset, ALONE)
    tensors, _, _ = together(1)
    for name, tensor in as_tensors(model, result).items():
        assert torch.equal(tensors[name], tensor), name
