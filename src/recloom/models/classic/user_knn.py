"""Recommend what people took whose things are like somebody's own."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recloom.dataset import Dataset, Histories
from recloom.errors import ConfigError
from recloom.models.classic.sparse import (
    SparseMatrix,
    backed_by_popularity,
    history_weights,
    sets_of_items,
    strongest,
)
from recloom.models.interface import CountedModel, ItemText, Scorer, Span, TrainingData


@dataclass(frozen=True, kw_only=True)
class UserKNNConfig:
    """Hyperparameters of `user-knn`: the [model] table of a run file."""

    neighbours: int = 100
    """Most similar people that are asked."""
    shrinkage: float = 10.0
    """Added below the fraction of the cosine, so that people with little in common count less."""
    half_life: float = 10.0
    """After so many later interactions an earlier one of the history counts half."""
    max_length: int = 100
    """Interactions of the history that are read, the newest ones."""

    def __post_init__(self) -> None:
        if self.neighbours < 1 or self.max_length < 1 or self.half_life <= 0 or self.shrinkage < 0:
            raise ConfigError(
                "model.neighbours and model.max_length have to be at least 1, model.half_life positive and"
                " model.shrinkage not negative"
            )


class UserKNN(CountedModel):
    """An item's score is the summed similarity of those among the nearest people who took it.

    People are compared by the cosine of what they took; of the history, newer interactions weigh more. Anybody's
    history will do, not only one that was trained on.

    Source: Herlocker et al. (1999), https://doi.org/10.1145/312624.312682.
    """

    name = "user-knn"
    Config = UserKNNConfig
    search_space = {
        "model.neighbours": Span(20, 500, log=True),
        "model.shrinkage": Span(0.1, 200.0, log=True),
        "model.half_life": Span(0.5, 50.0, log=True),
    }
    uses_text = False
    popularity_I: Tensor

    def __init__(self, config: UserKNNConfig, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__(config, dataset, text)
        self.max_length = config.max_length
        self.taken = SparseMatrix(len(dataset.user_offsets) - 1, self.num_items + 1)
        self.register_buffer("popularity_I", torch.zeros(self.num_items + 1))

    def count(self, data: TrainingData) -> None:
        self.taken.fill(sets_of_items(data))
        self.popularity_I = torch.from_numpy(data.item_counts()).float()

    def scorer(self) -> Scorer:
        taken = self.taken.matrix()
        takers = sparse.csr_array(taken.T)
        size_U = np.sqrt(np.diff(taken.indptr))

        def score(histories: Histories) -> Tensor:
            weights = history_weights(histories, self.config.half_life, self.num_items)
            size_B = np.sqrt((weights * weights).sum(axis=1))
            alike = sparse.csr_array(weights @ takers)
            rows = np.repeat(np.arange(len(histories)), np.diff(alike.indptr))
            alike.data /= size_B[rows] * size_U[alike.indices] + self.config.shrinkage
            return backed_by_popularity((strongest(alike, self.config.neighbours) @ taken).toarray(), self.popularity_I)

        return score

    def similarity(self, item_index: int) -> Tensor:
        takers = sparse.csr_array(self.taken.matrix().T)
        size_I = np.sqrt(np.diff(takers.indptr))
        together_I = (takers[[item_index]] @ takers.T).toarray()[0]
        return torch.from_numpy(together_I / np.maximum(size_I * size_I[item_index], 1))
