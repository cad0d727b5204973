"""A model's scores -> the k best items of each history: the one path to every list recloom shows.

Shapes: B histories, K cutoff, I catalogue (with the padding row).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recloom.dataset import PADDING_INDEX, Dataset, Histories
from recloom.models.interface import ItemText, Model, VectorModel

SCORES_AT_ONCE = 32_000_000
"""Most scores held in memory together, 128 MB: full ranking never materialises users times items. A quarter of that
for models that are no product of vectors, whose scores come in double precision and are copied."""


@dataclass(frozen=True)
class Rankings:
    """Ranked lists, best first.

    Where fewer than K items can be recommended, the rest of a row is `PADDING_INDEX` with score -inf.
    """

    item_index_BK: np.ndarray
    score_BK: np.ndarray
    above_B: np.ndarray
    """Other items with a higher score than the target; -1 where no target was named."""
    tied_B: np.ndarray
    """Other items with the same score as the target."""
    others_B: np.ndarray
    """Items that can be recommended, the target left out."""

    @classmethod
    def empty(cls, size: int, k: int) -> "Rankings":
        """Return lists with nothing in them."""
        counts = np.full((3, size), [[-1], [0], [0]])
        return cls(np.full((size, k), PADDING_INDEX), np.full((size, k), -np.inf, dtype=np.float32), *counts)

    def put(self, rows: np.ndarray, others: "Rankings") -> None:
        """Write other lists into some of the rows."""
        for name, values in self.__dict__.items():
            values[rows] = getattr(others, name)

    def rows(self, chosen: np.ndarray | slice) -> "Rankings":
        """Return some of the lists."""
        return Rankings(*(values[chosen] for values in self.__dict__.values()))

    @classmethod
    def concatenate(cls, parts: Sequence["Rankings"]) -> "Rankings":
        """Return the lists of all parts, one after the other."""
        return cls(*(np.concatenate(values) for values in zip(*(p.__dict__.values() for p in parts), strict=True)))


class Ranker:
    """A model with its weights fixed, ready to rank the whole catalogue.

    It computes in double precision and rounds the scores to single. How a matrix product is cut into
    blocks depends on the batch and the threads, and moves the last bits; this way that cannot move an item, and
    items with equal vectors tie exactly.
    """

    def __init__(self, model: Model) -> None:
        self.num_items = model.num_items
        self.model = fixed_copy(model)
        with torch.no_grad():
            self.scorer = self.model.scorer()

    def rank(
        self, histories: Histories, k: int, include_seen: bool = False, target_B: np.ndarray | None = None
    ) -> Rankings:
        """Return the k items with the highest scores for each history.

        Equal scores are ordered by item index.

        Args:
            histories: None of them empty.
            k: Length of the lists.
            include_seen: Whether items of the history may be recommended again.
            target_B: The item of each history whose place among all others is wanted.
        """
        k_possible = min(k, self.num_items)
        rankings = Rankings.empty(len(histories), k)
        most = SCORES_AT_ONCE if isinstance(self.model, VectorModel) else SCORES_AT_ONCE // 4
        rows_at_once = max(1, min(512, most // (self.num_items + 1)))
        by_length = np.argsort(histories.length_B, kind="stable")  # so that short histories are padded little
        for begin in range(0, len(histories), rows_at_once):
            rows = by_length[begin : begin + rows_at_once]
            batch = histories.rows(rows)
            score_BI = self.scores(batch)
            if not include_seen:
                score_BI[*map(torch.from_numpy, batch.seen())] = -torch.inf
            items, scores = top_k(score_BI, k_possible)
            found = scores > -np.inf
            rankings.item_index_BK[rows, :k_possible] = np.where(found, items, PADDING_INDEX)
            rankings.score_BK[rows, :k_possible] = scores
            if target_B is not None:
                wanted_B1 = score_BI.gather(1, torch.from_numpy(target_B[rows]).long()[:, None])
                rankings.above_B[rows] = (score_BI > wanted_B1).sum(dim=1)
                # An item that cannot be recommended comes after all that can, and ties with nothing.
                is_possible_B = wanted_B1.squeeze(1) > -torch.inf
                rankings.tied_B[rows] = ((score_BI == wanted_B1).sum(dim=1) - 1) * is_possible_B
                rankings.others_B[rows] = (score_BI > -torch.inf).sum(dim=1) - is_possible_B.long()
        return rankings

    def scores(self, histories: Histories) -> Tensor:
        """Return the score of every item for each history, float32 of shape (B, I); -inf for padding."""
        with torch.no_grad():
            score_BI = self.scorer(histories).float()
        score_BI[:, PADDING_INDEX] = -torch.inf
        return score_BI

    def neighbours(self, item_index: int, k: int) -> Rankings:
        """Return the k items most like one, itself left out."""
        with torch.no_grad():
            alike_1I = self.model.similarity(item_index).float()[None]
        alike_1I[0, [PADDING_INDEX, item_index]] = -torch.inf
        items, scores = top_k(alike_1I, min(k, self.num_items))
        found = scores[0] > -np.inf
        rankings = Rankings.empty(1, int(found.sum()))
        rankings.item_index_BK[:], rankings.score_BK[:] = items[:, found], scores[:, found]
        return rankings


def fixed_copy(model: Model) -> Model:
    """Copy a model in double precision, for answering; what it only refers to, such as the catalogue, is shared."""
    kept = ("_parameters", "_buffers", "_modules")
    referred = [v for module in model.modules() for name, v in vars(module).items() if name not in kept]
    shared = {id(value): value for value in referred if isinstance(value, Tensor | Dataset | ItemText)}
    return copy.deepcopy(model, shared).cpu().double().eval()


def top_k(score_BI: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices and scores of the k highest scores of each row, equal ones in ascending index.

    >>> top_k(torch.tensor([[1.0, 3.0, 3.0, 0.0, 1.0]]), 3)[0]
    array([[1, 2, 0]])
    """
    # torch.topk picks any of the items that tie. One more than asked shows whether the k-th ties with the next.
    scores, items = torch.topk(score_BI, min(k + 1, score_BI.shape[1]))
    items, by_index = torch.sort(items, dim=1)
    scores, by_score = torch.sort(scores.gather(1, by_index), dim=1, descending=True, stable=True)
    item_BK, score_BK = items.gather(1, by_score).numpy(), scores.numpy()
    if item_BK.shape[1] > k:
        for row in np.flatnonzero(score_BK[:, k] == score_BK[:, k - 1]):
            # Everything above the tie is settled; the places left go to the lowest indices that tie.
            tied = np.flatnonzero(score_BI[row].numpy() == score_BK[row, k])
            first = int(np.argmax(score_BK[row] == score_BK[row, k]))
            item_BK[row, first:k] = tied[: k - first]
    return item_BK[:, :k], score_BK[:, :k]


def ndcg_at_10(score_BC: Tensor, target_position_B: Tensor) -> Tensor:
    """Return the NDCG@10 of cases of which one candidate is right, shape (B,); equal scores go by position.

    >>> ndcg_at_10(torch.tensor([[0.0, 3.0, 3.0]]), torch.tensor([2]))
    tensor([0.6309])
    """
    target_score_B1 = score_BC.gather(1, target_position_B[:, None])
    is_before_BC = torch.arange(score_BC.shape[1], device=score_BC.device) < target_position_B[:, None]
    rank_B = ((score_BC > target_score_B1) | ((score_BC == target_score_B1) & is_before_BC)).sum(dim=1)
    return torch.where(rank_B < 10, 1 / torch.log2(rank_B + 2.0), 0.0)
