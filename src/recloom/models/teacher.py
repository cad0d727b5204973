"""A fitted model that another one learns from: not only what came next, but what else could have.

Shapes: B histories, L steps, N targets, C candidates, I catalogue (with the padding row), D width.
"""

import hashlib
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from recloom.dataset import Histories
from recloom.models.interface import VectorModel


class Teacher:
    """A model with its weights fixed, asked for its opinion on every step of a batch.

    Source: Hinton, Vinyals and Dean (2015), https://arxiv.org/abs/1503.02531.
    """

    def __init__(self, model: VectorModel, share: float) -> None:
        """Fix a model's weights.

        Args:
            model: Fitted on the same dataset and split.
            share: How much of the pupil's loss is disagreement with the teacher, the rest being what came next.
        """
        self._model = model.eval().requires_grad_(False)
        self.share = share
        self.max_length = model.max_length
        with torch.no_grad():
            self._items_ID = self._model.item_vectors()
        self.digest = hashlib.sha256(self._items_ID.numpy().tobytes()).hexdigest()
        """Tells this teacher from others."""

    def queries(self, histories: Histories) -> Tensor:
        """Return the teacher's query after each step, shape (B, L, D)."""
        with torch.no_grad():
            return self._model.step_queries(histories)

    def disagreement(self, query_ND: Tensor, target_N: Tensor, candidate_C: Tensor, score_NC: Tensor) -> Tensor:
        """Return the mean divergence of a pupil's choice among target and candidates from the teacher's.

        Args:
            query_ND: The teacher's queries.
            target_N: What came next.
            candidate_C: Other items.
            score_NC: The pupil's scores: of the target first, then of the candidates, -inf for one that is the target;
                shape (N, 1 + C).
        """
        items_ID = self._items_ID.to(score_NC)
        query_ND = query_ND.to(score_NC)
        own_NC = torch.cat(
            [(query_ND * items_ID[target_N]).sum(dim=1, keepdim=True), query_ND @ items_ID[candidate_C].T], 1
        )
        is_out_NC = score_NC == -torch.inf
        own_NC = own_NC.masked_fill(is_out_NC, -torch.inf)
        opinion_NC = functional.log_softmax(score_NC, dim=1).masked_fill(is_out_NC, 0.0)
        return -(own_NC.softmax(dim=1) * opinion_NC).sum(dim=1).mean()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teacher":
        return self  # a copy of the pupil, made for ranking, does not need a teacher of its own
