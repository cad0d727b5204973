import math

import pytest
import torch
from torch.nn import functional

from recloom.models.losses import LOSSES, gbce, softmax


@pytest.mark.parametrize("name", LOSSES)
def test_a_negative_that_is_the_target_itself_does_not_count(name):
    target, corrections = torch.tensor([0.3]), torch.zeros(2)
    with_itself = LOSSES[name](target, torch.tensor([[0.1, -math.inf]]), corrections)
    without = LOSSES[name](target, torch.tensor([[0.1]]), corrections[:1])
    scale = 3 / 2 if name == "gbce" else 1  # a mean over how many there were
    assert float(with_itself) * scale == pytest.approx(float(without))


def test_softmax_over_all_items_is_the_cross_entropy():
    scores = torch.randn(4, 7)
    target = torch.tensor([0, 3, 3, 6])
    others = scores.clone()
    others[torch.arange(4), target] = -math.inf
    loss = softmax(scores[torch.arange(4), target], others, torch.zeros(7))
    assert float(loss) == pytest.approx(float(functional.cross_entropy(scores, target)), rel=1e-5)


def test_gbce_of_all_negatives_is_binary_cross_entropy():
    # Nothing was sampled, so there is nothing to calibrate: beta is 1.
    loss = gbce(torch.zeros(1), torch.zeros(1, 3), torch.zeros(3))
    assert float(loss) == pytest.approx(math.log(2))
