"""Recommend what is taken by the people who took the things somebody had."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recloom.dataset import Dataset, Histories
from recloom.errors import ConfigError
from recloom.models.classic.sparse import (
    SCORES_AT_ONCE,
    SparseMatrix,
    backed_by_popularity,
    history_weights,
    sets_of_items,
    strongest,
)
from recloom.models.interface import CountedModel, ItemText, Scorer, Span, TrainingData


@dataclass(frozen=True, kw_only=True)
class ItemKNNConfig:
    """Hyperparameters of `item-knn`: the [model] table of a run file."""

    neighbours: int = 100
    """Most similar items kept for each item."""
    shrinkage: float = 10.0
    """Added below the fraction of the cosine, so that chance meetings of rare items count less."""
    half_life: float = 3.0
    """After so many later interactions an earlier one of the history counts half."""
    max_length: int = 100
    """Interactions of the history that are read, the newest ones."""

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.max_length < 1 or self.half_life <= 0 or self.shrinkage < 0:
            raise ConfigError(
                "model.neighbours and model.max_length have to be at least 1, model.half_life positive and"
                " model.shrinkage not negative"
            )


class ItemKNN(CountedModel):
    """An item's score is its similarity to the items of the history, newer ones weighing more.

    Similar are items that the same people took: the cosine of their sets of users, with shrinkage.

    Source: Sarwar et al. (2001), https://doi.org/10.1145/371920.372071; Deshpande and Karypis (2004),
    https://doi.org/10.1145/963770.963776.
    """

    name = "item-knn"
    Config = ItemKNNConfig
    search_space = {
        "model.neighbours": Span(20, 500, log=True),
        "model.shrinkage": Span(0.1, 200.0, log=True),
        "model.half_life": Span(0.5, 50.0, log=True),
    }
    uses_text = False
    popularity_I: Tensor

    def __init__(self, config: ItemKNNConfig, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__(config, dataset, text)
        self.max_length = config.max_length
        self.alike = SparseMatrix(self.num_items + 1, self.num_items + 1)
        self.register_buffer("popularity_I", torch.zeros(self.num_items + 1))

    def count(self, data: TrainingData) -> None:
        taken = sets_of_items(data)
        users_of = sparse.csr_array(taken.T)
        size_I = np.sqrt(np.diff(users_of.indptr))
        parts = []
        at_once = max(1, SCORES_AT_ONCE // (self.num_items + 1))
        for begin in range(0, self.num_items + 1, at_once):
            together = sparse.csr_array(users_of[begin : begin + at_once] @ taken)
            rows = np.repeat(np.arange(begin, begin + together.shape[0]), np.diff(together.indptr))
            together.data /= size_I[rows] * size_I[together.indices] + self.config.shrinkage
            together.data[rows == together.indices] = 0
            parts.append(strongest(together, self.config.neighbours))
        self.alike.fill(sparse.csr_array(sparse.vstack(parts, format="csr")))
        self.popularity_I = torch.from_numpy(data.item_counts()).float()

    def scorer(self) -> Scorer:
        alike = self.alike.matrix()

        def score(histories: Histories) -> Tensor:
            weights = history_weights(histories, self.config.half_life, self.num_items)
            return backed_by_popularity((weights @ alike).toarray(), self.popularity_I)

        return score

    def similarity(self, item_index: int) -> Tensor:
        return torch.from_numpy(self.alike.matrix()[[item_index]].toarray()[0])
