"""Scores of targets and of sampled negatives -> a loss to minimise.

Every loss takes the same three things and returns a mean over targets. Shapes: N targets, C negatives.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


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
