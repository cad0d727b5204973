"""Item vectors -> an index that finds most of the best ones without looking at all of them.

Shapes: I catalogue, D width, Q queries to measure with.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from recloom.errors import MissingExtraError

MEASURED_AT = 10
"""Length of the lists that recall is measured on."""
LISTS = 4
"""Lists are so many times the square root of the number of items."""
TRAINING_VECTORS_PER_LIST = 48
TRAINING_ROUNDS = 10
LEAST_SPREAD = 1e-6
"""Coordinates that queries use less than this, as a share of the most used one, count as so little."""


class ApproximateIndex:
    """An inverted file: vectors fall into lists by their nearest centre, and a query looks into the nearest lists.

    Coordinates are first scaled by how much queries make of them, which changes no product: a coordinate that queries
    hardly use, as that of popularity may be, must not decide in which list an item falls. One more coordinate
    then makes all vectors equally long, so that the largest product is the smallest distance.

    How many lists a query looks into is found when the index is built: as few as reach the recall that is wanted, on
    queries that people really have. Items that change afterwards are `outdated`, to be looked at one by one.

    Source: Jegou, Douze and Schmid (2011), https://doi.org/10.1109/TPAMI.2010.57, built by faiss (the extra `ann`);
    Bachrach et al. (2014), https://doi.org/10.1145/2645710.2645741, for products as distances.
    """

    def __init__(self, vectors_ID: np.ndarray, queries_QD: np.ndarray, recall: float, seed: int = 0) -> None:
        """Build the index and measure it.

        Args:
            vectors_ID: One vector an item, float32; row 0 is padding and never found.
            queries_QD: Queries to measure the recall with, float32.
            recall: Share of the ten best items that has to be found.
            seed: Decides which vectors the centres are made from.
        """
        try:
            import faiss
        except ImportError:
            raise MissingExtraError("ann", "approximate search") from None
        self._faiss: Any = faiss  # its own types do not tell what its Python wrappers accept
        spread_D = np.sqrt((queries_QD.astype(np.float64) ** 2).mean(axis=0)) if len(queries_QD) else np.ones(1)
        self._scale_D = np.maximum(spread_D, LEAST_SPREAD * max(spread_D.max(), 1e-9))
        scaled_ID = vectors_ID * self._scale_D
        squared_I = (scaled_ID**2).sum(axis=1)
        self._radius = float(np.sqrt(squared_I.max()))
        filled_I = np.sqrt(np.maximum(self._radius**2 - squared_I, 0))
        points_IC = np.concatenate([scaled_ID, filled_I[:, None]], axis=1).astype(np.float32)
        num_items, width = points_IC.shape
        num_lists = max(1, min(int(LISTS * np.sqrt(num_items)), num_items // TRAINING_VECTORS_PER_LIST))
        self._quantizer = faiss.IndexFlatL2(width)  # the index refers to it without keeping it
        self._index = faiss.IndexIVFFlat(self._quantizer, width, num_lists, faiss.METRIC_L2)
        self._index.cp.niter = TRAINING_ROUNDS
        self._index.cp.seed = seed + 1
        sample = np.random.default_rng(seed).permutation(num_items)[: TRAINING_VECTORS_PER_LIST * num_lists]
        self._index.train(points_IC[sample])
        self._index.add(points_IC)
        self.outdated = np.zeros(1, dtype=np.int64)
        """Rows that have to be looked at one by one, ascending."""
        self.recall, self.probes = self._tune(vectors_ID, queries_QD, recall)

    def search(self, query_D: np.ndarray, count: int, allowed_I: np.ndarray) -> np.ndarray:
        """Return rows of up to `count` allowed items, in no particular order.

        The fewer are allowed, the farther away the best of them may lie: more lists are looked into, which costs
        little, since only what is allowed is compared.
        """
        share = max(np.count_nonzero(allowed_I) / len(allowed_I), 1e-9)
        probes = min(int(np.ceil(self.probes / share**2)), self._index.nlist)
        selector = self._faiss.IDSelectorBitmap(np.packbits(allowed_I, bitorder="little"))
        parameters = self._faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        _, rows = self._index.search(self._points(query_D[None]), count, params=parameters)
        return rows[0][rows[0] >= 0]

    def outdate(self, rows: Sequence[int]) -> None:
        """Leave items to whoever looks at them one by one, because they are new or have changed."""
        self.outdated = np.union1d(self.outdated, np.asarray(rows, dtype=np.int64))

    def outdated_share(self, known_I: np.ndarray) -> float:
        """Return the share of some items that has to be looked at one by one."""
        return float(known_I[self.outdated].sum() / max(1, int(known_I.sum())))

    def _points(self, queries_QD: np.ndarray) -> np.ndarray:
        """Return where queries lie among the items: their length changes no order, so it is that of the items."""
        scaled_QD = queries_QD / self._scale_D
        scaled_QD *= self._radius / np.maximum(np.linalg.norm(scaled_QD, axis=1, keepdims=True), 1e-12)
        return np.concatenate([scaled_QD, np.zeros((len(queries_QD), 1))], axis=1).astype(np.float32)

    def _tune(self, vectors_ID: np.ndarray, queries_QD: np.ndarray, wanted: float) -> tuple[float, int]:
        """Return the recall reached, and the least number of lists to look into that reaches it."""
        count = min(MEASURED_AT, len(vectors_ID) - 1)
        best_QK = np.argpartition(-(queries_QD @ vectors_ID[1:].T), count - 1, axis=1)[:, :count] + 1
        points_QC = self._points(queries_QD)
        probes = 1
        while True:
            self._index.nprobe = probes
            _, found_QK = self._index.search(points_QC, count + 1)  # the padding row may be among them
            hits = [len(np.intersect1d(best, found)) for best, found in zip(best_QK, found_QK, strict=True)]
            recall = float(np.mean(hits)) / count if hits else 1.0
            if recall >= wanted or probes >= self._index.nlist:
                return recall, min(probes, self._index.nlist)
            probes *= 2
