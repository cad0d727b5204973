import math

import pytest
import torch
from torch.nn import functional

from recloom.models import losses
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


def test_softmax_in_blocks_is_softmax_with_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "SCORES_AT_ONCE", 20)  # three targets at once, and one in the last block
    generator = torch.Generator().manual_seed(0)
    target_N, candidate_C = torch.randint(6, (7,), generator=generator), torch.tensor([0, 1, 2, 3, 3, 5])
    is_target_NC = target_N[:, None] == candidate_C
    log_expected_C = torch.rand(6, generator=generator).log()
    values = [torch.randn(number, 4, generator=generator) for number in (7, 7, 6)]

    def whole(query_ND: torch.Tensor, target_ND: torch.Tensor, negative_CD: torch.Tensor) -> torch.Tensor:
        score_NC = (query_ND @ negative_CD.T).masked_fill(is_target_NC, -torch.inf)
        return losses.softmax((query_ND * target_ND).sum(dim=1), score_NC, log_expected_C)

    def in_blocks(query_ND: torch.Tensor, target_ND: torch.Tensor, negative_CD: torch.Tensor) -> torch.Tensor:
        return losses.blockwise_softmax(
            query_ND, target_ND, negative_CD, lambda some: is_target_NC[some], log_expected_C
        )

    outcomes = []
    for loss in (whole, in_blocks):
        leaves = [value.clone().requires_grad_() for value in values]
        result = loss(*leaves)
        (3 * result).backward()
        outcomes.append([result.detach(), *(leaf.grad for leaf in leaves)])
    for expected, found in zip(*outcomes, strict=True):
        torch.testing.assert_close(found, expected)
