"""Recommend what most often follows the last thing somebody took."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recloom.dataset import Dataset, Histories
from recloom.models.classic.sparse import SparseMatrix, backed_by_popularity, history_weights
from recloom.models.interface import CountedModel, ItemText, Scorer, TrainingData


@dataclass(frozen=True, kw_only=True)
class MarkovConfig:
    """`markov` has nothing to set."""


class Markov(CountedModel):
    """A first-order Markov chain: an item's score is its share among what followed the last item.

    Source: Shani, Heckerman and Brafman (2005), https://jmlr.org/papers/v6/shani05a.html.
    """

    name = "markov"
    Config = MarkovConfig
    uses_text = False
    popularity_I: Tensor

    def __init__(self, config: MarkovConfig, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__(config, dataset, text)
        self.follows = SparseMatrix(self.num_items + 1, self.num_items + 1)
        self.register_buffer("popularity_I", torch.zeros(self.num_items + 1))

    def count(self, data: TrainingData) -> None:
        segments = data.segments
        items_N = data.dataset.item_index[segments.positions()]
        user_N = np.repeat(np.arange(len(segments.start)), segments.end - segments.start)
        same_user = user_N[1:] == user_N[:-1]
        before, after = items_N[:-1][same_user], items_N[1:][same_user]
        shape = (self.num_items + 1, self.num_items + 1)
        follows = sparse.csr_array((np.ones(len(before)), (before, after)), shape=shape)
        rows = np.repeat(np.arange(shape[0]), np.diff(follows.indptr))
        follows.data /= follows.sum(axis=1)[rows]
        self.follows.fill(follows)
        self.popularity_I = torch.from_numpy(data.item_counts()).float()

    def scorer(self) -> Scorer:
        follows = self.follows.matrix()

        def score(histories: Histories) -> Tensor:
            # A single interaction is read, so that its weight is 1 whatever the half-life.
            last = history_weights(histories, 1.0, self.num_items)
            return backed_by_popularity((last @ follows).toarray(), self.popularity_I)

        return score

    def similarity(self, item_index: int) -> Tensor:
        follows = self.follows.matrix()
        return torch.from_numpy(follows[[item_index]].toarray()[0])
