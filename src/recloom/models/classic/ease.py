"""Recommend by the linear map that best rebuilds everybody's things from the rest of their things."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import linalg, sparse
from torch import Tensor

from recloom.dataset import Dataset, Histories
from recloom.errors import ConfigError
from recloom.models.classic.sparse import backed_by_popularity, sets_of_items
from recloom.models.interface import CountedModel, ItemText, Scorer, Span, TrainingData


@dataclass(frozen=True, kw_only=True)
class EASEConfig:
    """Hyperparameters of `ease`: the [model] table of a run file."""

    regularization: float = 200.0
    """Squared weights cost so much; larger trusts chance meetings less."""
    most_items: int = 8_000
    """Items that get weights, the most taken ones: memory grows with the square, time with the cube."""
    max_length: int = 200
    """Interactions of the history that are read, the newest ones."""

    def __post_init__(self) -> None:
        if self.regularization <= 0 or self.most_items < 1 or self.max_length < 1:
            raise ConfigError("model.regularization, model.most_items and model.max_length have to be positive")


class EASE(CountedModel):
    """A linear autoencoder without hidden layer, in closed form; an item may not speak for itself.

    Source: Steck (2019), "Embarrassingly Shallow Autoencoders for Sparse Data", https://arxiv.org/abs/1905.03375.
    """

    name = "ease"
    Config = EASEConfig
    search_space = {"model.regularization": Span(10.0, 5_000.0, log=True)}
    uses_text = False
    popularity_I: Tensor
    chosen_C: Tensor
    weight_CC: Tensor

    def __init__(self, config: EASEConfig, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__(config, dataset, text)
        self.max_length = config.max_length
        num_chosen = min(config.most_items, self.num_items)
        self.register_buffer("popularity_I", torch.zeros(self.num_items + 1))
        self.register_buffer("chosen_C", torch.zeros(num_chosen, dtype=torch.int64))
        self.register_buffer("weight_CC", torch.zeros(num_chosen, num_chosen))

    def count(self, data: TrainingData) -> None:
        counts_I = data.item_counts()
        self.popularity_I = torch.from_numpy(counts_I).float()
        chosen_C = np.sort(np.argsort(-counts_I[1:], kind="stable")[: len(self.chosen_C)] + 1)
        taken = sets_of_items(data)[:, chosen_C]
        inverse_CC = np.ascontiguousarray((taken.T @ taken).toarray())
        inverse_CC[np.diag_indices_from(inverse_CC)] += self.config.regularization
        # The matrix is symmetric and positive definite.
        factor = linalg.cholesky(inverse_CC, overwrite_a=True, check_finite=False)
        inverse_CC = linalg.cho_solve((factor, False), np.eye(len(factor)), overwrite_b=True, check_finite=False)
        weight_CC = inverse_CC / -np.diag(inverse_CC)
        weight_CC[np.diag_indices_from(weight_CC)] = 0
        self.chosen_C = torch.from_numpy(chosen_C)
        self.weight_CC = torch.from_numpy(weight_CC).float()

    def scorer(self) -> Scorer:
        weight_CC = self.weight_CC.double().numpy()
        column_I = np.full(self.num_items + 1, -1)
        column_I[self.chosen_C.numpy()] = np.arange(len(self.chosen_C))

        def score(histories: Histories) -> Tensor:
            rows, steps = np.nonzero(histories.item_index_BL)
            columns = column_I[histories.item_index_BL[rows, steps]]
            rows, columns = rows[columns >= 0], columns[columns >= 0]
            taken = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(histories), len(weight_CC)))
            taken.data[:] = 1
            score_BI = np.zeros((len(histories), self.num_items + 1))
            score_BI[:, self.chosen_C.numpy()] = taken @ weight_CC
            return backed_by_popularity(score_BI, self.popularity_I)

        return score

    def similarity(self, item_index: int) -> Tensor:
        alike_I = self.weight_CC.new_zeros(self.num_items + 1)
        row = (self.chosen_C == item_index).nonzero()
        if len(row):
            alike_I[self.chosen_C] = self.weight_CC[row[0, 0]]
        return alike_I
