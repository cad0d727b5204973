"""Items in the order of their scores, and rules -> the list that is shown."""

from collections.abc import Callable
from typing import Any

import numpy as np

from recloom.retrieval.catalogue import Catalogue
from recloom.retrieval.rules import Rules, rows_of
from recloom.retrieval.search import Hits

POOL = 5
"""Candidates an item of the list that diversity chooses among."""
LEAST_POOL = 50


def arrange(
    hits: Hits,
    k: int,
    rules: Rules,
    catalogue: Catalogue,
    allowed_I: np.ndarray,
    vectors_of: Callable[[np.ndarray], np.ndarray | None],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and scores of a list that obeys the rules.

    Pinned items come first and have the score infinity. Diversity is maximal marginal relevance: the next
    item is the one with the best (1 - diversity) x score - diversity x likeness to the nearest item above it, scores of
    the candidates being scaled to lie between 0 and 1, likeness being the cosine of vectors.

    Args:
        hits: What was found, all of it allowed.
        k: Length of the list.
        rules: What to obey beyond what is allowed.
        catalogue: What the items say.
        allowed_I: Which items may be shown: pinned ones among them only.
        vectors_of: Vectors of length 1 to compare some rows by; None where the model has none.

    Source: Carbonell and Goldstein (1998), https://doi.org/10.1145/290941.291025
    """
    if not rules.rearranges:
        return hits.best(k)
    pinned = [row for row in rows_of(catalogue, rules.pinned) if allowed_I[row]][:k]
    caps = _Caps(rules, catalogue)
    pinned = [row for row in pinned if caps.admit(row)]
    chosen, scores = list(pinned), [np.inf] * len(pinned)
    pool = max(LEAST_POOL, POOL * k)
    while True:
        rows, score = hits.best(pool)
        is_open = ~caps.full_mask(catalogue.size)[rows]
        ordered = _diversified(rows[is_open], score[is_open], chosen, k, rules, caps.copy(), vectors_of)
        for row, value in ordered:
            if len(chosen) < k and row not in chosen and caps.admit(row):
                chosen.append(row)
                scores.append(value)
        is_possible_I = allowed_I & ~caps.full_mask(catalogue.size)
        if len(chosen) >= k or len(rows) < pool or not is_possible_I.any():
            return np.array(chosen, dtype=np.int64), np.array(scores, dtype=np.float32)
        pool *= 4


def _diversified(
    rows: np.ndarray,
    scores: np.ndarray,
    above: list[int],
    k: int,
    rules: Rules,
    caps: "_Caps",
    vectors_of: Callable[[np.ndarray], np.ndarray | None],
) -> list[tuple[int, float]]:
    """Return candidates in the order in which they are to be taken."""
    pairs = list(zip(rows.tolist(), scores.tolist(), strict=True))
    vectors = vectors_of(np.concatenate([rows, np.array(above, dtype=rows.dtype)])) if rules.diversity else None
    if vectors is None or len(rows) == 0:
        return pairs
    candidates, taken = vectors[: len(rows)], vectors[len(rows) :]
    span = max(float(scores.max() - scores.min()), 1e-9)
    relevance = (scores - scores.min()) / span
    nearest = (candidates @ taken.T).max(axis=1, initial=0.0) if len(taken) else np.zeros(len(rows))
    left = ~np.isin(rows, above)
    ordered: list[tuple[int, float]] = []
    while left.any() and len(ordered) < k:
        value = np.where(left, (1 - rules.diversity) * relevance - rules.diversity * nearest, -np.inf)
        best = int(value.argmax())
        left[best] = False
        if caps.admit(pairs[best][0]):
            ordered.append(pairs[best])
            nearest = np.maximum(nearest, candidates @ candidates[best])
    return ordered


class _Caps:
    """How many items of each value a list holds already."""

    def __init__(self, rules: Rules, catalogue: Catalogue) -> None:
        self._most = rules.max_per
        self._columns = {name: catalogue.column(name) for name in rules.max_per}
        self._count: dict[tuple[str, Any], int] = {}

    def copy(self) -> "_Caps":
        other = object.__new__(_Caps)
        other._most, other._columns, other._count = self._most, self._columns, dict(self._count)
        return other

    def full_mask(self, size: int) -> np.ndarray:
        """Return which items have a value that has reached its cap, shape (size,)."""
        is_full_I = np.zeros(size, dtype=bool)
        for name, column in self._columns.items():
            full = [value for (of, value), count in self._count.items() if of == name and count >= self._most[name]]
            if full:
                is_full_I |= column.mask("in", full)
        return is_full_I

    def admit(self, row: int) -> bool:
        """Count an item if none of its values has reached its cap, and say whether it was counted."""
        groups = [(name, value) for name, column in self._columns.items() for value in column.groups_of(row)]
        if any(self._count.get(group, 0) >= self._most[group[0]] for group in groups):
            return False
        for group in groups:
            self._count[group] = self._count.get(group, 0) + 1
        return True
