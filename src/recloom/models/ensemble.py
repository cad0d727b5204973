"""Several fitted models -> one that says what they say on average.

Shapes: B histories, L steps, N items asked for, I catalogue (with the padding row), D width over all members.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recloom.dataset import Dataset, Histories
from recloom.models.interface import VectorModel


class Ensemble(VectorModel):
    """The mean of the scores of models that were fitted by themselves, as one inner product: a teacher of many minds.

    It is not stored: a small model that learned from it is (`recloom compress --method distill --also`).
    """

    name = "ensemble"

    def __init__(self, members: Sequence[VectorModel], dataset: Dataset) -> None:
        """Put models over one dataset side by side."""
        super().__init__(None, dataset, None)
        self.members = nn.ModuleList(members)
        self.max_length = min(member.max_length for member in members)

    @property
    def _models(self) -> list[VectorModel]:
        return [member for member in self.members if isinstance(member, VectorModel)]

    def item_vectors(self, rows_N: Tensor | None = None) -> Tensor:
        return torch.cat([member.item_vectors(rows_N) for member in self._models], dim=1)

    def queries(self, histories: Histories) -> Tensor:
        return torch.cat([member.queries(histories) for member in self._models], dim=1) / len(self.members)

    def step_queries(self, histories: Histories) -> Tensor:
        return torch.cat([member.step_queries(histories) for member in self._models], dim=2) / len(self.members)
