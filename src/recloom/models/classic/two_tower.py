"""Recommend by two networks, one for people and one for items, that meet in an inner product: retrieval.

Shapes: B histories, L steps, N targets, C negatives, I catalogue (with the padding row), D width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from recloom.dataset import PADDING_INDEX, Dataset, Histories, SplitConfig, split_dataset
from recloom.errors import ConfigError
from recloom.models.interface import ItemText, Span, TrainedModel, TrainingData, VectorModel, usual_length
from recloom.models.item_vectors import ItemVectors
from recloom.models.losses import softmax
from recloom.models.negatives import Negatives

MOST_NEGATIVES = 1_024
"""Targets of a batch that serve as negatives: all of a large batch would cost its square."""


@dataclass(frozen=True, kw_only=True)
class TwoTowerConfig:
    """Hyperparameters of `two-tower`: the [model] table of a run file."""

    embedding_dim: int = 64
    """Width D of the towers' ends."""
    text_dim: int = 128
    """Directions of the text embedding that are used, the strongest first."""
    max_length: int = 50
    """Interactions of the history that are read, the newest ones."""
    temperature: float = 0.1
    """What cosines are divided by."""
    dropout: float = 0.2
    """Share of values set to zero in training."""

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "text_dim", "max_length", "temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"model.{name} is {getattr(self, name)}; it has to be positive")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}; it has to lie in [0, 1)")


class TwoTower(TrainedModel, VectorModel):
    """A person is the mean of what they had, an item its id and its text; each goes through a network of its own.

    Trained with the batch's other targets as negatives, corrected for how often they are drawn.

    Source: Covington, Adams and Sargin (2016), https://doi.org/10.1145/2959100.2959190; Yi et al. (2019),
    https://doi.org/10.1145/3298689.3346996.
    """

    name = "two-tower"
    Config = TwoTowerConfig
    uses_modalities = True
    search_space = {
        "model.embedding_dim": [32, 64, 128],
        "model.temperature": Span(0.03, 0.3, log=True),
        "model.dropout": Span(0.0, 0.5),
        "training.learning_rate": Span(3e-4, 1e-2, log=True),
    }

    def __init__(self, config: TwoTowerConfig, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__(config, dataset, text)
        self.max_length = config.max_length
        width = config.embedding_dim
        text_IE = None if text is None else torch.from_numpy(text.vectors_IE)
        others = [torch.from_numpy(other.vectors_IE) for other in text.others] if text else []
        self.features = ItemVectors(self.num_items, width, "sum", text_IE, config.text_dim, 0.1, others, 0.1)
        self.item_tower = _tower(width, config.dropout)
        self.user_tower = _tower(width, config.dropout)

    @classmethod
    def defaults_for(cls, dataset: Dataset, split: SplitConfig) -> dict[str, Any]:
        return {"max_length": usual_length(split_dataset(dataset, split).train)}

    def prepare(self, data: TrainingData) -> None:
        counts_I = torch.from_numpy(data.item_counts())
        self.features.prepare(counts_I > 0)
        self._negatives = Negatives(counts_I, "in-batch", 0)

    def read_items(self, rows_N: Tensor, embedding_NE: Tensor) -> None:
        self.features.read(rows_N, embedding_NE)

    def item_vectors(self, rows_N: Tensor | None = None) -> Tensor:
        return self._items(torch.arange(self.num_items + 1) if rows_N is None else rows_N)

    def queries(self, histories: Histories) -> Tensor:
        rows = np.arange(len(histories))
        return self._step_queries(histories.item_index_BL)[rows, histories.length_B - 1]

    def loss(self, histories: Histories) -> Tensor:
        item_index_BL = torch.from_numpy(histories.item_index_BL).long()
        is_target_BL = item_index_BL[:, 1:] != PADDING_INDEX
        query_ND = self._step_queries(histories.item_index_BL[:, :-1])[is_target_BL]
        target_N = item_index_BL[:, 1:][is_target_BL]
        item_ND = self._items(target_N)
        chosen_C = torch.randperm(len(target_N))[:MOST_NEGATIVES]
        candidate_C, log_expected_C = self._negatives.draw(target_N[chosen_C])
        score_NC = query_ND @ item_ND[chosen_C].T
        # What else somebody took is no example of what they would not take.
        row_N = is_target_BL.nonzero()[:, 0]
        is_theirs_NC = (target_N[:, None] == candidate_C) | (row_N[:, None] == row_N[chosen_C])
        score_NC = score_NC.masked_fill(is_theirs_NC, -torch.inf)
        return softmax((query_ND * item_ND).sum(dim=1), score_NC, log_expected_C)

    def _items(self, rows_N: Tensor) -> Tensor:
        vectors = self.features(rows_N)
        return functional.normalize(vectors + self.item_tower(vectors), dim=-1, eps=1e-6)

    def _step_queries(self, item_index_BL: np.ndarray) -> Tensor:
        """Return the person after each step, shape (B, L, D)."""
        rows, position = torch.unique(torch.from_numpy(item_index_BL).long(), return_inverse=True)
        had_BLD = self.features(rows)[position] * torch.from_numpy(item_index_BL != PADDING_INDEX)[..., None]
        steps_L1 = torch.arange(1, had_BLD.shape[1] + 1)[:, None]
        mean_BLD = had_BLD.cumsum(dim=1) / steps_L1
        return functional.normalize(mean_BLD + self.user_tower(mean_BLD), dim=-1, eps=1e-6) / self.config.temperature


def _tower(width: int, dropout: float) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * width, width))
