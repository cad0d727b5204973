"""Histories that begin alike, read once: the same answers as each read whole."""

import numpy as np
import pytest
import torch

from recloom.dataset import Segments, gather
from recloom.explanation.removal import alike, variants
from recloom.models import MODELS, TrainingData, networks
from recloom.models.weave import NETWORKS
from tests.conftest import fake_text


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("length", [5, 9])
def test_every_network_reads_what_is_shared_once(cycle_dataset, network, length):
    torch.manual_seed(0)
    weave = MODELS["weave"]
    layers = {"num_layers": 2, "fusion": "separate", "half_life": 1.5}
    config = weave.Config(network=network, embedding_dim=16, hidden_dim=16, max_length=6, **layers)
    model = weave(config, cycle_dataset, fake_text(cycle_dataset)).eval()
    offsets = cycle_dataset.user_offsets
    model.prepare(TrainingData(cycle_dataset, Segments(offsets[:-1], offsets[1:])))
    model.double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # states would not depend on what came before as they begin
    begin = offsets[[1]]
    history = gather(cycle_dataset, begin, begin + length, model.max_length + 1)
    steps = int(history.length_B[0])
    kept_VL = np.ones((4, steps), dtype=bool)
    kept_VL[1, -1] = kept_VL[2, -2] = kept_VL[3, [-1, -3]] = False
    asked = variants(history, kept_VL, model.max_length)
    stretches = alike(asked)
    # A full window reaches further back when a step is gone, one that is not full does not.
    assert [(rows.tolist(), shared) for rows, shared in stretches] == (
        [([0, 1, 2, 3], 2)] if length == 5 else [([0], 5), ([1, 2, 3], 4)]
    )
    with torch.no_grad():
        whole = model.queries(asked)
        for rows, shared in stretches:
            read_once = model.branch_queries(asked.rows(rows), shared)
            torch.testing.assert_close(read_once, whole[rows], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_last_state_alone_is_that_of_the_whole(cycle_dataset, name):
    torch.manual_seed(0)
    weave = MODELS["weave"]
    config = weave.Config(network=name, embedding_dim=16, hidden_dim=16, num_layers=2, max_length=9)
    network = weave(config, cycle_dataset, fake_text(cycle_dataset)).towers[0].network.eval().double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    length_B = torch.tensor([1, 9, 4])
    is_event_BL = torch.arange(9) < length_B[:, None]
    event_BLD, times_BL = torch.randn(3, 9, 16).double(), torch.randint(1, 10**6, (3, 9)).cumsum(dim=1) * is_event_BL
    with torch.no_grad():
        whole_BD = network(event_BLD, is_event_BL, times_BL)[torch.arange(3), length_B - 1]
        torch.testing.assert_close(network.last_state(event_BLD, is_event_BL, times_BL), whole_BD, rtol=1e-9, atol=1e-9)


def test_many_branches_do_not_make_one_long_row(monkeypatch):
    longest = []

    class Row(networks._OneRow):
        def __init__(self, *parts):
            super().__init__(*parts)
            longest.append(self.event_1TD.shape[1])

    monkeypatch.setattr(networks, "_OneRow", Row)
    trunk, branches, times = torch.randn(1, 3, 8), torch.randn(40, 17, 8), torch.zeros(40, 20, dtype=torch.int64)
    for name in ("sasrec", "hstu"):
        network = {"sasrec": networks.SASRec, "hstu": networks.HSTU}[name](8, 2, 2, 20, 0.0).eval()
        whole = network(torch.cat([trunk.expand(40, -1, -1), branches], dim=1), torch.ones(40, 20).bool(), times)
        torch.testing.assert_close(network.branches(trunk, branches, times), whole[:, 3:], rtol=1e-4, atol=1e-5)
    assert max(longest) <= 2 * 20
