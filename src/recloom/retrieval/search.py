"""Histories and the items that may be shown -> those with the highest scores, exactly as `Ranker` orders them.

Shapes: B histories, I catalogue (with the padding row and spare rows), D width, C candidates.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from recloom.dataset import Histories
from recloom.models import Model, VectorModel
from recloom.models.coded_items import ROWS_AT_ONCE
from recloom.models.interface import Scorer
from recloom.models.ranking import fixed_copy
from recloom.retrieval.approximate import ApproximateIndex
from recloom.retrieval.item_table import CodedTable, item_table

MARGIN = 96
"""Candidates beyond those asked for: rough products may order the last of them otherwise than exact ones."""
FEW_ALLOWED = 2_000
"""Up to so many items, all that are allowed are scored instead of asking the approximate index."""
FEW_CANDIDATES = 256
"""Up to so many items, all are scored in double precision at once."""


class Hits:
    """The items of one history in the order of their scores, found as far as they are asked for."""

    def __init__(self, find: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> None:
        self._find = find
        self._found: tuple[np.ndarray, np.ndarray] | None = None
        self._asked = 0

    @classmethod
    def of_scores(
        cls, score_I: np.ndarray, allowed_I: np.ndarray, boosted: tuple[np.ndarray, np.ndarray] | None
    ) -> "Hits":
        """Return the items in the order of scores that are all there, float32; equal ones by index."""
        if boosted is not None:
            score_I = score_I.copy()
            score_I[boosted[0]] += boosted[1]
        score_I = np.where(allowed_I, score_I, -np.inf)

        def find(count: int) -> tuple[np.ndarray, np.ndarray]:
            count = min(count, len(score_I))
            least = np.partition(score_I, len(score_I) - count)[len(score_I) - count]
            rows = np.flatnonzero((score_I >= least) & (score_I > -np.inf))
            rows = rows[np.lexsort((rows, -score_I[rows]))[:count]]
            return rows, score_I[rows]

        return cls(find)

    def best(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and scores of the best items, best first; fewer where no more may be shown."""
        if self._found is None or count > self._asked:
            self._found, self._asked = self._find(count), count
        rows, scores = self._found
        return rows[:count], scores[:count]


class Search:
    """A model with its weights fixed, asked for the best among the items that may be shown.

    Scores are those of `Ranker`: computed in double precision and rounded to single, equal ones ordered by index. A
    model of vectors finds its candidates by rough products and settles their order in double; a bound on what was
    rounded off tells when more candidates are needed, so that the list is the same.
    """

    def __init__(self, model: Model) -> None:
        self.model = fixed_copy(model)
        self.index: ApproximateIndex | None = None
        with torch.no_grad():
            self.scorer: Scorer | None = None
            if isinstance(self.model, VectorModel):
                self._table = item_table(self.model)
            else:
                self.scorer = self.model.scorer()

    @property
    def is_coded(self) -> bool:
        """Whether item vectors are codes, which are looked at one by one."""
        return isinstance(self.model, VectorModel) and isinstance(self._table, CodedTable)

    @property
    def item_vectors(self) -> np.ndarray | None:
        """Item vectors in single precision; None for a model that has none."""
        with torch.no_grad():
            return self._table.whole().numpy() if isinstance(self.model, VectorModel) else None

    def unit_vectors(self, rows: np.ndarray) -> np.ndarray | None:
        """Return vectors of length 1 to compare some items with each other by; None for a model that has none."""
        if not isinstance(self.model, VectorModel):
            return None
        with torch.no_grad():
            vectors_ND = self.model.similarity_vectors(torch.from_numpy(np.asarray(rows, dtype=np.int64)))
            return torch.nn.functional.normalize(vectors_ND, dim=1).numpy()

    def read_items(self, rows: Sequence[int], embedding_NE: np.ndarray) -> None:
        """Take what the language model makes of new or changed items."""
        rows_N = torch.tensor(rows)
        with torch.no_grad():
            self.model.read_items(rows_N, torch.from_numpy(embedding_NE))
            if isinstance(self.model, VectorModel):
                self._table.read(rows_N)
        if self.index is not None:
            self.index.outdate(rows)

    def search(
        self,
        histories: Histories,
        allowed_BI: Sequence[np.ndarray],
        boosted_B: Sequence[tuple[np.ndarray, np.ndarray] | None],
    ) -> list[Hits]:
        """Begin to look for the best items of each history.

        Args:
            histories: None of them empty.
            allowed_BI: Which items may be shown to each.
            boosted_B: Rows whose scores are changed, and by how much.
        """
        with torch.inference_mode():
            if self.scorer is not None:
                score_BI = self.scorer(histories).float()
                return [
                    Hits.of_scores(score_I.numpy(), allowed_I, boosted)
                    for score_I, allowed_I, boosted in zip(score_BI, allowed_BI, boosted_B, strict=True)
                ]
            assert isinstance(self.model, VectorModel)
            query_BD = self.model.queries(histories)
        return self.search_vectors(query_BD, allowed_BI, boosted_B)

    def search_vectors(
        self,
        query_BD: Tensor,
        allowed_BI: Sequence[np.ndarray],
        boosted_B: Sequence[tuple[np.ndarray, np.ndarray] | None],
    ) -> list[Hits]:
        """Begin to look for the items whose vectors have the largest products with each query."""
        change_BI = [self._changes(boosted) for boosted in boosted_B]
        if self.index is None:
            score_BI, error_B = self._table.rough(query_BD)
            each = zip(query_BD, score_BI, error_B.tolist(), allowed_BI, change_BI, strict=True)
            return [Hits(self._settled(*one)) for one in each]
        return [Hits(self._approximate(*one)) for one in zip(query_BD, allowed_BI, change_BI, strict=True)]

    def _changes(self, boosted: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray | None:
        """Return by how much each item's score changes; None where none does."""
        if boosted is None:
            return None
        change_I = np.zeros(self._table.size, dtype=np.float32)
        change_I[boosted[0]] = boosted[1]
        return change_I

    def _settled(
        self,
        query_D: Tensor,
        score_I: Tensor,
        error: float,
        allowed_I: np.ndarray | None,
        change_I: np.ndarray | None,
        rows_I: np.ndarray | None = None,
    ) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
        """Return the way to the best items when rough scores are there.

        Args:
            query_D: In double precision.
            score_I: Rough scores; changed in place.
            error: By how much they may differ from the exact ones.
            allowed_I: Which may be shown. None: all.
            change_I: By how much each score of the catalogue changes. None: not at all.
            rows_I: Rows of the catalogue that the scores belong to. None: all, in order.
        """
        if change_I is not None:
            score_I += torch.from_numpy(change_I if rows_I is None else change_I[rows_I])
        if allowed_I is not None:
            score_I.masked_fill_(torch.from_numpy(~allowed_I), -torch.inf)

        def find(count: int) -> tuple[np.ndarray, np.ndarray]:
            rough_C, place_C = torch.topk(score_I, min(count + MARGIN, len(score_I)))
            place_C = place_C[rough_C > -torch.inf]
            rows_C, scores_C = in_order(place_C)
            if len(place_C) == len(rough_C) < len(score_I):
                least = float(scores_C[count - 1]) - error
                if float(rough_C[-1]) >= least:  # so may be others
                    rows_C, scores_C = in_order((score_I >= least).nonzero().squeeze(1))
            return rows_C[:count], scores_C[:count]

        def in_order(place_C: Tensor) -> tuple[np.ndarray, np.ndarray]:
            places = place_C.numpy()
            return self._in_order(query_D, places if rows_I is None else rows_I[places], change_I)

        return find

    def _in_order(
        self, query_D: Tensor, rows_C: np.ndarray, change_I: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return some rows and their scores, as computed in double precision, best first."""
        parts = torch.split(torch.from_numpy(rows_C), ROWS_AT_ONCE)
        exact_C = torch.cat([self._table.exact(part_R) @ query_D for part_R in parts])
        if change_I is not None:
            exact_C += torch.from_numpy(change_I[rows_C])
        scores_C = exact_C.float().numpy()
        order = np.lexsort((rows_C, -scores_C))
        return rows_C[order], scores_C[order]

    def _approximate(
        self, query_D: Tensor, allowed_I: np.ndarray, change_I: np.ndarray | None
    ) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
        index = self.index
        assert index is not None

        def exactly(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
            if len(rows) <= FEW_CANDIDATES:
                found, scores = self._in_order(query_D, rows, change_I)
                return found[:count], scores[:count]
            score_1N, error_1 = self._table.rough(query_D[None], torch.from_numpy(rows))
            return self._settled(query_D, score_1N[0], float(error_1), None, change_I, rows)(count)

        if np.count_nonzero(allowed_I) <= FEW_ALLOWED:
            return partial(exactly, np.flatnonzero(allowed_I))
        # What the index does not know as it is now, and what is boosted, is looked at item by item.
        beside = index.outdated if change_I is None else np.union1d(index.outdated, np.flatnonzero(change_I))
        beside = beside[allowed_I[beside]]
        indexed_I = allowed_I.copy()
        indexed_I[beside] = False

        def find(count: int) -> tuple[np.ndarray, np.ndarray]:
            rows = index.search(query_D.float().numpy(), count + MARGIN, indexed_I)
            if len(rows) < count and len(rows) < np.count_nonzero(indexed_I):
                return exactly(np.flatnonzero(allowed_I), count)  # the lists it looked into hold too few of these
            return exactly(np.concatenate([beside, rows]), count)

        return find
