"""Item vectors -> an index that finds most of the best ones without looking at all of them.

Shapes: I catalogue, D width, Q queries to measure with.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from recloom.errors import MissingExtraError

MEASURED_AT = 10
"""Length of the lists that recall is measured on."""
TRAINING_VECTORS_PER_LIST = 64
MOST_PROBES = 256


class ApproximateIndex:
    """An inverted file: vectors fall into lists by their nearest centre, and a query looks into the nearest lists.

    How many lists it looks into is found when it is built: as few as reach the recall that is wanted, on queries that
    people really have. Items that change afterwards are `outdated`, to be looked at one by one.

    Source: Jegou, Douze and Schmid (2011), https://doi.org/10.1109/TPAMI.2010.57; built by faiss, the extra `ann`.
    """

    def __init__(self, vectors_ID: np.ndarray, queries_QD: np.ndarray, recall: float, seed: int = 0) -> None:
        """Build the index and measure it.

        Args:
            vectors_ID: One vector an item, float32; row 0 is padding and never found.
            queries_QD: Queries to measure the recall with, float32.
            recall: Share of the ten best items that has to be found.
        """
        try:
            import faiss
        except ImportError:
            raise MissingExtraError("ann", "approximate search") from None
        self._faiss: Any = faiss  # its own types do not tell what its Python wrappers accept
        num_items, width = vectors_ID.shape
        num_lists = max(1, int(np.sqrt(num_items)))
        quantizer = faiss.IndexFlatIP(width)
        self._index = faiss.IndexIVFFlat(quantizer, width, num_lists, faiss.METRIC_INNER_PRODUCT)
        # Centres by distance: by product, the longest vectors would draw everything to themselves.
        self._index.cp.spherical = False
        rng = np.random.default_rng(seed)
        sample = rng.permutation(num_items)[: TRAINING_VECTORS_PER_LIST * num_lists]
        self._index.train(np.ascontiguousarray(vectors_ID[sample]))
        self._index.add(vectors_ID)
        self.outdated_I = np.zeros(num_items, dtype=bool)
        self.outdated_I[0] = True
        self.recall, self.probes = self._tune(vectors_ID, queries_QD, recall)

    def search(self, query_D: np.ndarray, count: int, allowed_I: np.ndarray) -> np.ndarray:
        """Return rows of up to `count` allowed items, in no particular order."""
        bits = np.packbits(allowed_I, bitorder="little")
        selector = self._faiss.IDSelectorBitmap(bits)
        parameters = self._faiss.SearchParametersIVF(sel=selector, nprobe=self.probes)
        _, rows = self._index.search(query_D[None], count, params=parameters)
        return rows[0][rows[0] >= 0]

    def outdate(self, rows: Sequence[int]) -> None:
        """Leave items to whoever looks at them one by one, because they are new or have changed."""
        self.outdated_I[list(rows)] = True

    @property
    def outdated_share(self) -> float:
        """Share of the items that have to be looked at one by one."""
        return float(self.outdated_I.mean())

    def _tune(self, vectors_ID: np.ndarray, queries_QD: np.ndarray, wanted: float) -> tuple[float, int]:
        """Return the recall reached, and the least number of lists to look into that reaches it."""
        count = min(MEASURED_AT, len(vectors_ID) - 1)
        score_QI = queries_QD @ vectors_ID[1:].T
        best_QK = np.argpartition(-score_QI, count - 1, axis=1)[:, :count] + 1
        probes, recall = 1, 0.0
        while True:
            self._index.nprobe = probes
            _, found_QK = self._index.search(queries_QD, count + 1)
            hits = [len(np.intersect1d(best, found)) for best, found in zip(best_QK, found_QK, strict=True)]
            recall = float(np.mean(hits)) / count if hits else 1.0
            if recall >= wanted or probes >= min(MOST_PROBES, self._index.nlist):
                return recall, probes
            probes *= 2
