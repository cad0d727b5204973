"""How much recent popularity adds to a score: read off validation, in a few weights.

Shapes: B histories, I catalogue (with the padding row), C candidates, D width of queries, P features of an item,
G features of a request.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.dataset import PADDING_INDEX, SECONDS_PER_DAY
from recloom.models.circumstances import Moments
from recloom.models.interface import TrainingData

DAYS = (1.0, 7.0, 30.0, 90.0, np.inf)
"""Windows before the end of training in which interactions are counted."""
STEPS = 40
"""Steps of the optimiser that finds the weights; it is there long before."""
CASES_AT_ONCE = 64
"""Validation cases whose scores are weighed together, so that memory is not that of all, several times over."""
PENALTY = 2.0
"""Ridge on the weights, in cases: with few validation cases, popularity matters little unless they agree."""


class PopularityPrior(nn.Module):
    """score = a(r) * (query . item) + b(r) . popularity(item), with a and b linear in what the request r says.

    Popularity is the log of an item's interactions in several windows, and whether it has none at all. What is
    known of a request is how long ago the history ended: after a minute the next item continues it, after a
    year what is popular now says more. The weights maximise the likelihood of the validation targets.
    """

    features_IP: Tensor
    weight_GP: Tensor

    def __init__(self, num_items: int) -> None:
        super().__init__()
        num_features = len(DAYS) + 1
        features_IP = torch.zeros(num_items + 1, num_features)
        features_IP[1:, -1] = 1  # until they are counted, as for items that come later, there are no interactions
        self.register_buffer("features_IP", features_IP)
        self.register_buffer("weight_GP", torch.zeros(2, 1 + num_features))
        self._usual_P: Tensor | None = None
        self.register_load_state_dict_post_hook(_forget_usual)  # type: ignore[no-untyped-call]

    def prepare(self, data: TrainingData) -> None:
        """Count interactions up to the end of the training data."""
        counts_PI = np.stack([data.item_counts(days) for days in DAYS])
        features = np.concatenate([np.log1p(counts_PI), counts_PI[-1:] == 0])
        features[:, PADDING_INDEX] = 0
        self.features_IP = torch.from_numpy(features.T.copy()).float()
        self._usual_P = None

    def extend(self, query_BD: Tensor, request: Moments) -> Tensor:
        """Return queries that also weigh popularity, shape (B, D + P)."""
        weight_BP = _what_is_known(request).to(query_BD) @ self.weight_GP
        return torch.cat([query_BD * weight_BP[:, :1].exp(), weight_BP[:, 1:]], dim=1)

    def usual(self, weight_P: Tensor) -> Tensor:
        """Return what popularity adds to the score of the average item that somebody has taken, a single number."""
        if self._usual_P is None:
            is_taken_I = self.features_IP[:, :-1].amax(dim=1) > 0
            self._usual_P = self.features_IP[is_taken_I].sum(dim=0) / max(1, int(is_taken_I.sum()))
        return self._usual_P.to(weight_P) @ weight_P

    def fit(self, similarity_BC: Tensor, candidate_C: Tensor, target_position_B: Tensor, request: Moments) -> None:
        """Choose the weights under which the targets are most likely, the queries and items being as they are.

        Args:
            similarity_BC: Query times item; -inf for an item that may not be recommended.
            candidate_C: Which items.
            target_position_B: Which of the candidates was taken.
            request: When the targets were asked for.
        """
        known_BG = _what_is_known(request).to(similarity_BC)
        features_CP = self.features_IP[candidate_C].to(similarity_BC)
        weight_GP = torch.zeros_like(self.weight_GP, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight_GP], max_iter=STEPS, line_search_fn="strong_wolfe")

        def surprise(some: slice) -> Tensor:
            forbidden_BC = similarity_BC[some] == -torch.inf
            possible_BC = similarity_BC[some].masked_fill(forbidden_BC, 0.0)  # infinity times a weight has no gradient
            weight_BP = known_BG[some] @ weight_GP
            score_BC = possible_BC * weight_BP[:, :1].exp() + weight_BP[:, 1:] @ features_CP.T
            score_BC = score_BC.masked_fill(forbidden_BC, -torch.inf)
            return functional.cross_entropy(score_BC, target_position_B[some], reduction="sum")

        def loss_and_gradient() -> Tensor:
            optimizer.zero_grad()
            num_cases = len(target_position_B)
            total = PENALTY / num_cases * weight_GP.square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            for begin in range(0, num_cases, CASES_AT_ONCE):
                loss = surprise(slice(begin, begin + CASES_AT_ONCE)) / num_cases
                loss.backward()  # type: ignore[no-untyped-call]
                total = total.detach() + loss.detach()
            return total

        optimizer.step(loss_and_gradient)  # type: ignore[no-untyped-call]
        self.weight_GP = weight_GP.detach()

    def fit_like(self, other: "PopularityPrior") -> None:
        """Take over the weights that were fitted for another model of the same kind."""
        self.weight_GP = other.weight_GP.clone()


def _forget_usual(prior: PopularityPrior, _: object = None) -> None:
    """Have the average item worked out again, when it is asked for, after other features were loaded."""
    prior._usual_P = None


def _what_is_known(request: Moments) -> Tensor:
    """Return the features of requests, shape (B, G): a constant, and the log of days since the history ended.

    Where that is not known it is taken for nothing: somebody who is asking right after the last event.
    """
    gap_B = torch.from_numpy(request.gap)
    log_days_B = torch.log1p(gap_B.clamp_min(0) / SECONDS_PER_DAY)
    return torch.stack([torch.ones_like(log_days_B), log_days_B], dim=1).float()
