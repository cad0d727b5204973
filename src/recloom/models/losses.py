"""Scores of targets and of sampled negatives -> a loss to minimise.

Every loss takes the same three things and returns a mean over targets. Shapes: N targets, C negatives, D width of
queries and items.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SCORES_AT_ONCE = 2**20
"""Scores that `blockwise_softmax` holds: few enough to stay in the cache of a core, many enough for full products."""


def softmax(target_score_N: Tensor, score_NC: Tensor, log_expected_C: Tensor) -> Tensor:
    """Return the cross-entropy of each target against the negatives.

    A negative drawn from few stands for many: the log of how often it is expected in the sample is taken from its
    score (log-Q correction), so that the sum over the sample estimates the sum over all items.

    Args:
        target_score_N: Score of what came next.
        score_NC: Scores of the negatives; -inf where a negative is the target itself.
        log_expected_C: Log of the expected number of each negative in the sample; 0 where all items are there.

    Source: Bengio and Senecal (2008), https://doi.org/10.1109/TNN.2007.912312

    >>> softmax(torch.zeros(1), torch.zeros(1, 3), torch.zeros(3)).exp()
    tensor(4.)
    """
    both = torch.cat([target_score_N[:, None], score_NC - log_expected_C], dim=1)
    return (torch.logsumexp(both, dim=1) - target_score_N).mean()


def blockwise_softmax(
    query_ND: Tensor,
    target_ND: Tensor,
    negative_CD: Tensor,
    is_target: Callable[[slice], Tensor],
    log_expected_C: Tensor,
) -> Tensor:
    """Return what `softmax` returns, without ever holding the scores of all targets.

    A block of targets is scored, its loss taken and its gradient computed at once, so that memory does not grow with
    targets x negatives, and what softmax does to each score happens in the cache: half of a step's time was spent
    on carrying those scores from and to memory (benchmarks/step-profile.md).

    Args:
        query_ND: Queries.
        target_ND: Vector of what came next.
        negative_CD: Vectors of the negatives.
        is_target: Tells of some targets which negatives are the target itself, shape (n, C).
        log_expected_C: Log of the expected number of each negative in the sample.

    Source: the idea of Liger Kernel's fused cross-entropy, Hsu et al. (2024), https://arxiv.org/abs/2410.10989
    """
    loss: Tensor = _BlockwiseSoftmax.apply(query_ND, target_ND, negative_CD, is_target, log_expected_C)  # type: ignore[no-untyped-call]
    return loss


class _BlockwiseSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query_ND: Tensor,
        target_ND: Tensor,
        negative_CD: Tensor,
        is_target: Callable[[slice], Tensor],
        log_expected_C: Tensor,
    ) -> Tensor:
        num_targets = len(query_ND)
        total = torch.zeros((), device=query_ND.device)
        query_grad_ND, target_grad_ND = torch.empty_like(query_ND), torch.empty_like(target_ND)
        negative_grad_CD = torch.zeros_like(negative_CD)
        targets_at_once = max(1, SCORES_AT_ONCE // max(1, len(negative_CD)))
        for begin in range(0, num_targets, targets_at_once):
            some = slice(begin, begin + targets_at_once)
            query, target = query_ND[some], target_ND[some]
            target_score = (query * target).sum(dim=1).float()
            score = (query @ negative_CD.T).float().sub_(log_expected_C)
            score.masked_fill_(is_target(some), -torch.inf)
            largest = torch.maximum(score.amax(dim=1), target_score)
            weight = score.sub_(largest[:, None]).exp_()
            target_weight = (target_score - largest).exp()
            sum_of_weights = weight.sum(dim=1) + target_weight
            total += (sum_of_weights.log() + largest - target_score).sum()
            # What the mean loss changes by with each score.
            weight = weight.div_(num_targets * sum_of_weights[:, None]).to(query.dtype)
            pull = ((target_weight / sum_of_weights - 1) / num_targets).to(query.dtype)[:, None]
            query_grad_ND[some] = weight @ negative_CD + pull * target
            target_grad_ND[some] = pull * query
            negative_grad_CD += weight.T @ query
        ctx.save_for_backward(query_grad_ND, target_grad_ND, negative_grad_CD)
        return total / num_targets

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        query_grad_ND, target_grad_ND, negative_grad_CD = ctx.saved_tensors
        (scale,) = grad_outputs
        return query_grad_ND * scale, target_grad_ND * scale, negative_grad_CD * scale, None, None


def gbce(target_score_N: Tensor, score_NC: Tensor, log_expected_C: Tensor) -> Tensor:
    """Return the generalised binary cross-entropy with its calibration parameter t at 0.75.

    The positive's probability is raised to a power that undoes the overconfidence which sampling brings.

    Source: Petrov and Macdonald (2023), "gSASRec", https://arxiv.org/abs/2308.07192
    """
    sampled_share = float(log_expected_C.exp().mean().clamp(max=1.0))
    beta = sampled_share * (0.75 * (1 - 1 / sampled_share) + 1 / sampled_share)
    positive = -beta * functional.logsigmoid(target_score_N)
    negative = -functional.logsigmoid(-score_NC).sum(dim=1)
    return (positive + negative).mean() / (1 + score_NC.shape[1])


def bpr(target_score_N: Tensor, score_NC: Tensor, log_expected_C: Tensor) -> Tensor:
    """Return the mean loss of putting a negative before the target (Bayesian personalised ranking).

    Source: Rendle et al. (2009), https://arxiv.org/abs/1205.2618

    >>> bpr(torch.zeros(1), torch.zeros(1, 5), torch.zeros(5)).exp()
    tensor(2.0000)
    """
    is_other_NC = score_NC > -math.inf
    losses_NC = functional.softplus(score_NC - target_score_N[:, None])
    return losses_NC.sum() / is_other_NC.sum().clamp_min(1)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"softmax": softmax, "gbce": gbce, "bpr": bpr}
"""Every loss by the name a run file uses."""
