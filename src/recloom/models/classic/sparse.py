"""What the models share that remember people and items as they were: sparse matrices and weights of a history.

Shapes: B histories, I catalogue (with the padding row), R rows and N values of a sparse matrix.
"""

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from recloom.dataset import Histories
from recloom.models.interface import TrainingData
from recloom.models.ranking import top_k

SCORES_AT_ONCE = 8_000_000
"""Most similarities held in memory together while neighbours are chosen."""


class SparseMatrix(nn.Module):
    """The values of a matrix that are not zero, row by row, stored with the model.

    Rows that a larger catalogue adds are empty.
    """

    count_R: Tensor
    column_N: Tensor
    value_N: Tensor

    def __init__(self, num_rows: int, num_columns: int) -> None:
        super().__init__()
        self.num_columns = num_columns
        self.register_buffer("count_R", torch.zeros(num_rows, dtype=torch.int64))
        self.register_buffer("column_N", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("value_N", torch.zeros(0))

    def fill(self, matrix: sparse.csr_array) -> None:
        """Take over the values of a matrix, in the order in which each row holds them."""
        self.count_R = torch.from_numpy(np.diff(matrix.indptr).astype(np.int64))
        self.column_N = torch.from_numpy(matrix.indices.astype(np.int32))
        self.value_N = torch.from_numpy(matrix.data.astype(np.float32))

    def matrix(self) -> sparse.csr_array:
        """Return the matrix, float64 of shape (R, columns)."""
        begins = np.concatenate([[0], np.cumsum(self.count_R.numpy())])
        parts = (self.value_N.double().numpy(), self.column_N.numpy(), begins)
        return sparse.csr_array(parts, shape=(len(self.count_R), self.num_columns))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        # How many values there are is learned, so it is known only now.
        for name in ("column_N", "value_N"):
            stored = state_dict[prefix + name]
            setattr(self, name, stored.new_zeros(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *others)


def sets_of_items(data: TrainingData) -> sparse.csr_array:
    """Return who took what, 1 where a user has an item, of shape (users + 1, I)."""
    segments, dataset = data.segments, data.dataset
    users = np.repeat(np.arange(len(segments.start)), segments.end - segments.start)
    items = dataset.item_index[segments.positions()]
    shape = (len(segments.start), len(dataset.items) + 1)
    taken = sparse.csr_array((np.ones(len(users)), (users, items)), shape=shape)
    taken.data[:] = 1
    return taken


def history_weights(histories: Histories, half_life: float, num_items: int) -> sparse.csr_array:
    """Return how much each item of a history counts, half after so many later interactions; shape (B, I)."""
    rows, steps = np.nonzero(np.arange(histories.item_index_BL.shape[1]) < histories.length_B[:, None])
    weights = 0.5 ** ((histories.length_B[rows] - 1 - steps) / half_life)
    shape = (len(histories), num_items + 1)
    return sparse.csr_array((weights, (rows, histories.item_index_BL[rows, steps])), shape=shape)


def strongest(similarity: sparse.csr_array, number: int) -> sparse.csr_array:
    """Keep the largest values of each row, of equal ones those in the first columns."""
    parts = []
    at_once = max(1, SCORES_AT_ONCE // similarity.shape[1])
    for begin in range(0, similarity.shape[0], at_once):
        dense = torch.from_numpy(similarity[begin : begin + at_once].toarray())
        columns, values = top_k(dense, min(number, dense.shape[1]))
        rows = np.repeat(np.arange(len(dense)), columns.shape[1])
        kept = sparse.csr_array((values.ravel(), (rows, columns.ravel())), shape=dense.shape)
        kept.eliminate_zeros()
        parts.append(kept)
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def backed_by_popularity(score_BI: np.ndarray, popularity_I: Tensor) -> Tensor:
    """Order what a model has no opinion on, whose score is 0, by popularity, below everything else."""
    score = torch.from_numpy(score_BI)
    lowest_B1 = score.amin(dim=1, keepdim=True).clamp_max(0)
    return torch.where(score != 0, score, lowest_B1 + popularity_I / (popularity_I.max() + 1) - 1)
