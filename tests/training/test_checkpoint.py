"""Tables that are dealt out, in files of which each worker writes and reads its own rows."""

import pytest
import torch
from torch import nn

from recloom.models.dealt_table import DealtTable
from recloom.training.checkpoint import Epoch, TrainingState, load_checkpoint, save_checkpoint
from recloom.workers import Workers

WHOLE = torch.arange(22.0).view(11, 2)
STATE = TrainingState([Epoch(1, 0.5, 1.0, 0.1)], 1)


class OneOfMany(Workers):
    def __init__(self, rank, size):
        self.rank, self.size = rank, size


class Nothing:
    """An optimiser with nothing to remember."""

    def tensors(self):
        return {}

    dealt_tensors = tensors

    def load_tensors(self, tensors):
        assert not tensors


def model_of(table, worker):
    return nn.ModuleDict({"table": DealtTable(nn.Embedding.from_pretrained(table), worker)})


def save(path, key, table, size, ranks):
    for rank in ranks:
        worker = OneOfMany(rank, size)
        save_checkpoint(path, key, model_of(table, worker), Nothing(), STATE, worker)


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (4, 1), (1, 4), (3, 3)])
def test_every_worker_finds_its_own_rows_whoever_wrote_them(tmp_path, before, after):
    path = tmp_path / "checkpoint"
    save(path, "run", WHOLE, before, ranks=reversed(range(before)))  # the one that leads names all files, last
    for rank in range(after):
        worker = OneOfMany(rank, after)
        model = model_of(torch.zeros_like(WHOLE), worker)
        assert load_checkpoint(path, "run", model, Nothing(), worker) == STATE
        assert torch.equal(model["table"].weight, WHOLE[rank::after])


def test_rows_that_another_run_left_beside_a_checkpoint_are_not_taken_for_its_own(tmp_path):
    path = tmp_path / "checkpoint"
    save(path, "run", WHOLE, size=2, ranks=[1, 0])
    save(path, "another run", -WHOLE, size=2, ranks=[1])  # and is killed before the one that leads has written
    worker = OneOfMany(1, 2)
    model = model_of(torch.zeros_like(WHOLE), worker)
    load_checkpoint(path, "run", model, Nothing(), worker)
    assert torch.equal(model["table"].weight, WHOLE[1::2])
