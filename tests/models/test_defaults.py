import numpy as np
import pytest

from recloom.dataset import SplitConfig
from recloom.models import MODELS


class Log:
    """As much of a dataset as the rules look at."""

    def __init__(self, items, users, length):
        held_out = 2  # of each user under leave-one-out; the rules look at what is left
        self.items = range(items)
        self.user_offsets = np.concatenate([[0], np.arange(users + 1) * (length + held_out)])
        self.num_interactions = users * (length + held_out)
        self.timestamp = np.broadcast_to(np.arange(length + held_out), (users, length + held_out)).ravel()


def defaults(log, **split):
    return MODELS["weave"].defaults_for(log, SplitConfig(**split))


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (Log(12_000, 20_000, 9), {"embedding_dim": 512, "hidden_dim": 256, "max_length": 20, "num_negatives": 1_024}),
        (Log(1_700, 900, 110), {"network": "gru", "max_length": 50, "num_negatives": 0, "dropout": 0.4}),
        (Log(3_400, 6_000, 165), {"network": "sasrec", "embedding_dim": 128, "max_length": 165, "dropout": 0.2}),
        (Log(1_000_000, 500_000, 20), {"network": "gru", "embedding_dim": 64, "num_negatives": 1_024}),
    ],
    ids=["a shop", "films, few people", "films, many people", "a very large catalogue"],
)
def test_what_suits_the_data_is_chosen_from_its_size(log, expected):
    chosen = defaults(log, protocol="leave-one-out")
    assert {name: chosen[name] for name in expected} == expected


def test_a_protocol_that_tells_nothing_of_the_target_trains_without_requests():
    log = Log(100, 100, 10)
    assert defaults(log)["request"]
    assert not defaults(log, protocol="leave-one-out")["request"]
    assert defaults(log, protocol="leave-one-out", request="timestamp")["request"]
