"""A model with its weights fixed and one history -> what each item's score comes from, in differences of scores.

Shapes: V variants of a history, L its steps, N items, I catalogue.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recloom.dataset import Histories
from recloom.explanation.removal import alike, known_of_request, variants, without_request_part
from recloom.models import Model, VectorModel
from recloom.models.interface import Scorer


@dataclass(frozen=True)
class Removed:
    """An interaction, and how much lower an item's score is without it."""

    item_index: int
    behavior_index: int
    contribution: float | None
    """None for the only interaction there is: without it the model has no score."""


@dataclass(frozen=True)
class Facts:
    """What the score of one item comes from."""

    item_index: int
    score: float
    history: Sequence[Removed]
    """The interactions that were taken away, one at a time, the newest first."""
    context: Mapping[str, float]
    """How much lower the score is without each part of the request that is known."""
    parts: Mapping[str, float]
    """What the score is the sum of; empty where the model does not know the parts apart."""
    num_read: int
    """Interactions of the history that the model reads."""


class Explainer:
    """Asks a model again with less, and says what changed.

    A contribution is an exact difference: the score as it is, minus the score of the same item after the same history
    without one interaction. Contributions of several interactions do not add up to the score, because what one of
    them says may be said by another, too.
    """

    def __init__(self, model: Model, scorer: Scorer | None = None) -> None:
        """Begin.

        Args:
            model: In double precision, its weights fixed (`fixed_copy`).
            scorer: Its scorer, where there is one already; one is made otherwise.
        """
        self.model = model
        self._scorer = scorer
        if scorer is None and not isinstance(model, VectorModel):
            with torch.no_grad():
                self._scorer = model.scorer()

    def explain(self, history: Histories, rows: Sequence[int], most: int) -> list[Facts]:
        """Say what the scores of some items come from.

        Args:
            history: A single one that the model can answer, as `variants` wants it.
            rows: Items.
            most: Most interactions to take away, the newest that the model reads.
        """
        length = int(history.length_B[0])
        num_read = min(length, self.model.max_length)
        steps = np.arange(length - 1, max(length - num_read, length - most) - 1, -1)
        if length == 1:
            steps = steps[:0]
        parts = known_of_request(history) if self.model.reads_requests else []
        # The whole history, asked for with all that is known and without each part of it; then each one without a step.
        num_whole = 1 + len(parts)
        kept_VL = np.ones((num_whole + len(steps), length), dtype=bool)
        kept_VL[num_whole + np.arange(len(steps)), steps] = False
        asked = variants(history, kept_VL, self.model.max_length)
        for number, name in enumerate(parts):
            asked = without_request_part(asked, 1 + number, name)
        rows_N = torch.tensor(list(rows), dtype=torch.long)  # a list may be empty
        with torch.no_grad():
            score_VN, parts_N = self._scores(asked, rows_N)
        lost_VN = score_VN[:1] - score_VN
        items, behaviors = history.item_index_BL[0], history.behavior_index_BL[0]
        return [
            Facts(
                int(row),
                float(score_VN[0, place]),
                [
                    Removed(int(items[step]), int(behaviors[step]), float(lost_VN[num_whole + number, place]))
                    for number, step in enumerate(steps)
                ]
                or [Removed(int(items[0]), int(behaviors[0]), None)],
                {name: float(lost_VN[1 + number, place]) for number, name in enumerate(parts)},
                {name: float(part_N[place]) for name, part_N in parts_N.items()},
                num_read,
            )
            for place, row in enumerate(rows)
        ]

    def scores(self, histories: Histories, rows_N: Tensor) -> Tensor:
        """Return the scores of some items for each history, shape (V, N)."""
        with torch.no_grad():
            return self._scores(histories, rows_N)[0]

    def _scores(self, histories: Histories, rows_N: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return scores, and the parts of those of the first history."""
        if isinstance(self.model, VectorModel):
            query_VD = torch.cat(
                [self.model.branch_queries(histories.rows(some), shared) for some, shared in alike(histories)]
            )
            score_VN = query_VD @ self.model.item_vectors(rows_N).T
            return score_VN, self.model.score_parts(query_VD[0], rows_N)
        assert self._scorer is not None
        return self._scorer(histories)[:, rows_N], {}
