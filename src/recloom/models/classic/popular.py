"""Recommend everybody what most people take: the yardstick every other model has to beat."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recloom.dataset import Dataset, Histories
from recloom.errors import ConfigError
from recloom.models.interface import CountedModel, ItemText, Span, TrainingData, VectorModel


@dataclass(frozen=True, kw_only=True)
class PopularConfig:
    """`popular` has nothing to set."""


@dataclass(frozen=True, kw_only=True)
class PopularRecentConfig:
    """Hyperparameters of `popular-recent`: the [model] table of a run file."""

    days: float = 7.0
    """Length of the window that ends with the newest interaction, in days."""

    def __post_init__(self) -> None:
        if self.days <= 0:
            raise ConfigError(f"model.days is {self.days}; it has to be positive")


class _ByCount(CountedModel, VectorModel):
    """Scores that are the same for everybody."""

    uses_text = False

    count_I: Tensor

    def __init__(self, config: Any, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__(config, dataset, text)
        self.register_buffer("count_I", torch.zeros(len(dataset.items) + 1))

    def item_vectors(self, rows_N: Tensor | None = None) -> Tensor:
        return (self.count_I if rows_N is None else self.count_I[rows_N])[:, None]

    def score_parts(self, query_D: Tensor, rows_N: Tensor) -> dict[str, Tensor]:
        return {"popularity": self.item_vectors(rows_N) @ query_D}

    def queries(self, histories: Histories) -> Tensor:
        return self.count_I.new_ones(len(histories), 1)


class Popular(_ByCount):
    """An item's score is how often people interacted with it."""

    name = "popular"
    Config = PopularConfig

    def count(self, data: TrainingData) -> None:
        self.count_I = torch.from_numpy(data.item_counts()).float()


class PopularRecent(_ByCount):
    """An item's score is how often people interacted with it in the last days of the training data.

    Items outside the window follow by their count over all time.
    """

    name = "popular-recent"
    Config = PopularRecentConfig
    search_space = {"model.days": Span(0.5, 365.0, log=True)}

    def count(self, data: TrainingData) -> None:
        counts, recent_counts = data.item_counts(), data.item_counts(self.config.days)
        # Less than one recent interaction can weigh, so that it only decides between equals.
        self.count_I = torch.from_numpy(recent_counts + counts / (counts.max() + 1)).float()
