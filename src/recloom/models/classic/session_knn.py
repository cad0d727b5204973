"""Recommend what followed in the histories of others that come nearest to somebody's own.

Shapes: B histories, I catalogue (with the padding row), U users, N interactions of all users, M interactions of the
neighbours of a batch.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recloom.dataset import SECONDS_PER_DAY, Dataset, Histories, expand_ranges
from recloom.errors import ConfigError
from recloom.models.classic.sparse import (
    SparseMatrix,
    backed_by_popularity,
    strongest,
)
from recloom.models.interface import CountedModel, ItemText, Scorer, Span, TrainingData


@dataclass(frozen=True, kw_only=True)
class VSKNNConfig:
    """Hyperparameters of `vsknn`: the [model] table of a run file."""

    neighbours: int = 100
    """Most similar histories that are asked."""
    sample: int = 1_000
    """Newest histories sharing an item among which neighbours are looked for."""
    max_length: int = 10
    """Interactions of the history that are read, the newest ones; the oldest of them counts least."""

    def __post_init__(self) -> None:
        _check_positive(self, "neighbours", "sample", "max_length")


@dataclass(frozen=True, kw_only=True)
class STANConfig:
    """Hyperparameters of `stan`: the [model] table of a run file."""

    neighbours: int = 100
    """Most similar histories that are asked."""
    sample: int = 1_000
    """Newest histories sharing an item among which neighbours are looked for."""
    max_length: int = 20
    """Interactions of the history that are read, the newest ones."""
    position_decay: float = 3.0
    """After so many later interactions an earlier one of the history counts 1/e."""
    days_decay: float = 60.0
    """A neighbour that ended so many days before the newest history counts 1/e."""
    distance_decay: float = 3.0
    """An item so many interactions away from the shared one, in the neighbour's history, counts 1/e."""

    def __post_init__(self) -> None:
        _check_positive(self, "neighbours", "sample", "max_length", "position_decay", "days_decay", "distance_decay")


class _SessionKNN(CountedModel):
    """Neighbours are histories that share items with somebody's own; what they hold is scored by where it stands."""

    uses_text = False
    popularity_I: Tensor
    ended_U: Tensor

    def __init__(self, config: VSKNNConfig | STANConfig, dataset: Dataset, text: ItemText | None) -> None:
        super().__init__(config, dataset, text)
        self.max_length = config.max_length
        self._neighbours, self._sample = config.neighbours, config.sample
        num_users = len(dataset.user_offsets) - 1
        self.sequences = SparseMatrix(num_users, self.num_items + 1)
        self.register_buffer("ended_U", torch.zeros(num_users, dtype=torch.int64))
        self.register_buffer("popularity_I", torch.zeros(self.num_items + 1))

    def count(self, data: TrainingData) -> None:
        segments, dataset = data.segments, data.dataset
        begins = np.concatenate([[0], np.cumsum(segments.end - segments.start)])
        items_N = dataset.item_index[segments.positions()]
        shape = (len(segments.start), self.num_items + 1)
        # Each row holds a history in its order, repeats included.
        self.sequences.fill(sparse.csr_array((np.ones(len(items_N)), items_N, begins), shape=shape))
        ended_U = np.where(segments.end > segments.start, dataset.timestamp[np.maximum(segments.end, 1) - 1], 0)
        self.ended_U = torch.from_numpy(ended_U.astype(np.int64))
        self.popularity_I = torch.from_numpy(data.item_counts()).float()

    @abstractmethod
    def _history_weights(self, steps_back: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Return how much an interaction of the history counts when neighbours are looked for."""

    @abstractmethod
    def _neighbour_weights(self, size_U: np.ndarray) -> np.ndarray:
        """Return what the similarity of each user is multiplied by, shape (U,)."""

    @abstractmethod
    def _item_weights(self, items_M: np.ndarray, shared_back_M: np.ndarray, distance_M: np.ndarray) -> np.ndarray:
        """Return how much each interaction of a neighbour counts.

        Args:
            items_M: The item.
            shared_back_M: Steps back, in the history asked for, of the newest item that the two share.
            distance_M: Interactions between this one and the shared one, in the neighbour's history.
        """

    def scorer(self) -> Scorer:
        sequences = self.sequences.matrix()
        begin_U, item_N = sequences.indptr.astype(np.int64), sequences.indices
        taken = sequences.copy()
        taken.sum_duplicates()
        taken.data[:] = 1
        takers = sparse.csr_array(taken.T)
        weight_U = self._neighbour_weights(np.diff(taken.indptr))
        is_last_N = _is_last(np.repeat(np.arange(len(begin_U) - 1), np.diff(begin_U)), item_N)
        newest_first_U = np.empty(len(weight_U))
        newest_first_U[np.argsort(self.ended_U.numpy(), kind="stable")] = np.arange(1, len(weight_U) + 1)
        num_columns = self.num_items + 1

        def score_some(histories: Histories) -> np.ndarray:
            rows, steps = np.nonzero(np.arange(histories.item_index_BL.shape[1]) < histories.length_B[:, None])
            back = histories.length_B[rows] - 1 - steps
            items = histories.item_index_BL[rows, steps]
            # Where an item occurs more than once, in the history or a neighbour's, its last place counts.
            weights = self._history_weights(back, histories.length_B[rows]) * _is_last(rows, items)
            read = sparse.csr_array((weights, (rows, items)), shape=(len(histories), num_columns))
            alike = sparse.csr_array(read @ takers)
            alike = self._newest(alike, newest_first_U)
            alike.data *= weight_U[alike.indices]
            alike = strongest(alike, self._neighbours)

            # Every interaction of every neighbour: the row it is for, the pair it belongs to, and its place.
            neighbour_P = alike.indices
            row_P = np.repeat(np.arange(len(histories)), np.diff(alike.indptr))
            position_M = expand_ranges(begin_U[neighbour_P], begin_U[neighbour_P + 1])
            pair_M = np.repeat(np.arange(len(neighbour_P)), np.diff(begin_U)[neighbour_P])
            item_M = item_N[position_M]
            back_BI = np.full((len(histories), num_columns), np.iinfo(np.int32).max, dtype=np.int32)
            np.minimum.at(back_BI, (rows, items), back.astype(np.int32))
            back_M = back_BI[row_P[pair_M], item_M]
            if len(pair_M) == 0:
                return np.zeros((len(histories), num_columns))
            first_P = np.searchsorted(pair_M, np.arange(len(neighbour_P)))
            shared_back_P = np.minimum.reduceat(back_M, first_P)
            place_M = np.where(back_M == shared_back_P[pair_M], position_M, -1)
            shared_place_P = np.maximum.reduceat(place_M, first_P)
            weight_M = self._item_weights(item_M, shared_back_P[pair_M], np.abs(position_M - shared_place_P[pair_M]))
            weight_M = weight_M * alike.data[pair_M] * is_last_N[position_M]
            cell_M = row_P[pair_M].astype(np.int64) * num_columns + item_M
            return np.bincount(cell_M, weight_M, minlength=len(histories) * num_columns).reshape(-1, num_columns)

        def score(histories: Histories) -> Tensor:
            return backed_by_popularity(score_some(histories), self.popularity_I)

        return score

    def _newest(self, alike: sparse.csr_array, newest_first_U: np.ndarray) -> sparse.csr_array:
        """Keep of each row the neighbours whose histories ended last."""
        if np.diff(alike.indptr).max(initial=0) <= self._sample:
            return alike
        when = sparse.csr_array((newest_first_U[alike.indices], alike.indices, alike.indptr), shape=alike.shape)
        kept = strongest(when, self._sample)
        kept.data[:] = 1
        return sparse.csr_array(alike.multiply(kept))

    def similarity(self, item_index: int) -> Tensor:
        sequences = self.sequences.matrix()
        sequences.sum_duplicates()
        takers = sparse.csr_array(sequences.T)
        takers.data[:] = 1
        size_I = np.sqrt(np.diff(takers.indptr))
        together_I = (takers[[item_index]] @ takers.T).toarray()[0]
        return torch.from_numpy(together_I / np.maximum(size_I * size_I[item_index], 1))


class VSKNN(_SessionKNN):
    """Session neighbours whose newer items count more, both when neighbours are sought and when items are scored.

    Source: Ludewig and Jannach (2018), "Evaluation of session-based recommendation algorithms",
    https://arxiv.org/abs/1803.09587: linear decay, items weighed by one over the place of the newest shared item and
    by inverse frequency. That is the log of all interactions over the item's; the authors' session-rec takes one plus
    the log of all sessions over the item's.
    """

    name = "vsknn"
    Config = VSKNNConfig
    search_space = {
        "model.neighbours": Span(20, 500, log=True),
        "model.sample": Span(200, 5_000, log=True),
        "model.max_length": Span(2, 30, log=True),
    }

    def _history_weights(self, steps_back: np.ndarray, length: np.ndarray) -> np.ndarray:
        return length - steps_back  # whole numbers, so that what is equally similar ties exactly

    def _neighbour_weights(self, size_U: np.ndarray) -> np.ndarray:
        return np.ones(len(size_U))

    def _item_weights(self, items_M: np.ndarray, shared_back_M: np.ndarray, distance_M: np.ndarray) -> np.ndarray:
        popularity_I = self.popularity_I.double().numpy()
        rarity_I = np.log(popularity_I.sum() / np.maximum(popularity_I, 1))
        return rarity_I[items_M] / (shared_back_M + 1)


class STAN(_SessionKNN):
    """Session neighbours with three decays: of the history's older items, of older neighbours, of distant items.

    Source: Garg et al. (2019), "Sequence and Time Aware Neighborhood for Session-based Recommendations",
    https://doi.org/10.1145/3331184.3331322.
    """

    name = "stan"
    Config = STANConfig
    search_space = {
        "model.neighbours": Span(20, 500, log=True),
        "model.sample": Span(200, 5_000, log=True),
        "model.position_decay": Span(0.5, 20.0, log=True),
        "model.days_decay": Span(1.0, 2_000.0, log=True),
        "model.distance_decay": Span(0.5, 20.0, log=True),
    }

    def _history_weights(self, steps_back: np.ndarray, length: np.ndarray) -> np.ndarray:
        return np.exp(-steps_back / self.config.position_decay)

    def _neighbour_weights(self, size_U: np.ndarray) -> np.ndarray:
        ended_U = self.ended_U.numpy()
        days_U = (ended_U.max(initial=0) - ended_U) / SECONDS_PER_DAY
        return np.exp(-days_U / self.config.days_decay) / np.sqrt(np.maximum(size_U, 1))

    def _item_weights(self, items_M: np.ndarray, shared_back_M: np.ndarray, distance_M: np.ndarray) -> np.ndarray:
        return np.exp(-distance_M / self.config.distance_decay)


def _is_last(row_N: np.ndarray, item_N: np.ndarray) -> np.ndarray:
    """Return whether each interaction is the last of its row with its item; rows one after the other, shape (N,)."""
    key_N = row_N.astype(np.int64) * (int(item_N.max(initial=0)) + 1) + item_N
    _, from_end = np.unique(key_N[::-1], return_index=True)
    is_last_N = np.zeros(len(key_N), dtype=bool)
    is_last_N[len(key_N) - 1 - from_end] = True
    return is_last_N


def _check_positive(config: object, *names: str) -> None:
    for name in names:
        if getattr(config, name) <= 0:
            raise ConfigError(f"model.{name} is {getattr(config, name)}; it has to be positive")
