import numpy as np
import pytest
import torch

from recloom.models.negatives import Negatives

COUNTS = torch.tensor([0, 6, 3, 1, 0])
TARGETS = torch.tensor([1, 1, 2])


def test_without_a_number_every_item_of_the_training_data_is_a_negative_and_stands_for_itself():
    items, log_expected = Negatives(COUNTS, "uniform", 0).draw(TARGETS)
    assert items.tolist() == [1, 2, 3]  # never 0, the padding, nor 4, which nobody took
    assert log_expected.tolist() == [0, 0, 0]


def test_a_sample_is_corrected_by_what_is_expected_of_it():
    items, log_expected = Negatives(COUNTS, "uniform", 2).draw(TARGETS)
    assert len(items) == 2
    assert log_expected.exp().tolist() == pytest.approx([2 / 3, 2 / 3])
    items, log_expected = Negatives(COUNTS, "popularity", 2).draw(TARGETS)
    expected = {1: 2 * 0.6, 2: 2 * 0.3, 3: 2 * 0.1}
    assert log_expected.exp().tolist() == pytest.approx([expected[item] for item in items.tolist()])
    items, log_expected = Negatives(COUNTS, "in-batch", 0).draw(TARGETS)
    assert items.tolist() == TARGETS.tolist()
    assert log_expected.exp().tolist() == pytest.approx([3 * 0.6, 3 * 0.6, 3 * 0.3])


def test_draws_come_as_often_as_they_are_expected():
    torch.manual_seed(0)
    sampler = Negatives(COUNTS, "popularity", 2)
    drawn = torch.cat([sampler.draw(TARGETS)[0] for _ in range(3_000)])
    assert np.bincount(drawn.numpy(), minlength=5) / len(drawn) == pytest.approx([0, 0.6, 0.3, 0.1, 0], abs=0.02)
