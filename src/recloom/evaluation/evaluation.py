"""Ranked lists and what was held out -> a table of metrics with intervals.

Shapes: B cases, K cutoff, I catalogue (with the padding row), C categories.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from scipy import sparse

from recloom.dataset import Cases, Dataset, Split, SplitConfig, split_dataset
from recloom.evaluation.categories import category_column, category_shares, column_slices, history_shares
from recloom.evaluation.lists import (
    coverage_at_k,
    diversity_at_k,
    gini_at_k,
    head_items,
    head_share_at_k,
    miscalibration_at_k,
    novelty_at_k,
    serendipity_at_k,
)
from recloom.evaluation.metrics import METRICS, auc
from recloom.evaluation.significance import bootstrap_intervals
from recloom.models import Rankings

SLICED = ("HR", "NDCG")
"""Metrics that are shown for slices of the cases."""


@dataclass(frozen=True)
class Metric:
    """A mean over users, and the 95 % bootstrap interval of that mean."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Slice:
    """How a model did on some of the cases."""

    num_cases: int
    metrics: dict[str, Metric]


@dataclass(frozen=True)
class Evaluation:
    """How a model did on the test cases of its split."""

    model: str
    protocol: str
    ties: str
    split: str
    """Fingerprint of the split: two evaluations with the same one asked the same of the same data."""
    num_cases: int
    unusable_users: int
    """Users with a test interaction but no history, who were not asked."""
    include_seen: bool
    """Whether items of the history could be recommended again."""
    metrics: dict[str, Metric]
    """By name and cutoff: "NDCG@10"."""
    catalogue: dict[str, float]
    """What the lists of all cases together show of the catalogue, by name and cutoff: "coverage@10"."""
    slices: dict[str, Slice]
    """The same for some of the cases: new items, short histories, ..."""
    seconds: float
    """Wall time of ranking the whole catalogue for every case."""
    values: dict[str, np.ndarray] = field(repr=False)
    """Each metric's value for every case, so that models can be compared case by case."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as `--json` writes them; the values of single cases are left out."""
        plain = {name: value for name, value in self.__dict__.items() if name != "values"}
        return plain | {
            "metrics": {name: metric.__dict__ for name, metric in self.metrics.items()},
            "slices": {
                name: {"num_cases": some.num_cases, "metrics": {n: m.__dict__ for n, m in some.metrics.items()}}
                for name, some in self.slices.items()
            },
        }


@dataclass(frozen=True)
class Judge:
    """What lists are judged by beside the held-out item: the catalogue, and what training knew of it."""

    dataset: Dataset
    config: SplitConfig
    counts_I: np.ndarray
    """Training interactions of each item."""
    vectors_IE: np.ndarray | None
    """Text embeddings, for diversity; None: it is not measured."""
    category: str | None = None
    """Column of the catalogue for miscalibration. None: the first that holds categories."""
    columns: Sequence[str] = ()
    """Columns to slice the cases by."""

    @cached_property
    def split(self) -> Split:
        """What the models learned from and are asked."""
        return split_dataset(self.dataset, self.config)

    @property
    def cases(self) -> Cases:
        """What is asked."""
        return self.split.test

    @cached_property
    def _targets(self) -> np.ndarray:
        """The item that was to be found in each case, shape (B,)."""
        return self.dataset.item_index[self.cases.target]

    def evaluate(
        self, model: str, rankings: Rankings, cutoffs: Sequence[int], *, include_seen: bool, seconds: float
    ) -> Evaluation:
        """Return how good a model's lists are.

        Args:
            model: Its name.
            rankings: The lists of all test cases, at least as long as the largest cutoff.
            cutoffs: How much of a list to read, for instance 5, 10 and 20.
            include_seen: Whether items of the history could be recommended again.
            seconds: How long ranking took.
        """
        values = self.values(rankings, cutoffs)
        return Evaluation(
            model=model,
            protocol=self.config.protocol,
            ties=self.config.tie_rule,
            split=self.split.fingerprint(self.dataset),
            num_cases=len(self.cases),
            unusable_users=self.split.unusable_users,
            include_seen=include_seen,
            metrics=with_intervals(values),
            catalogue=self.catalogue(rankings, cutoffs),
            slices=self.sliced(values),
            seconds=round(seconds, 3),
            values=values,
        )

    @cached_property
    def _shares(self) -> tuple[sparse.csr_array, np.ndarray] | None:
        column = self.category or category_column(self.dataset)
        if column is None:
            return None
        share_IC, _ = category_shares(self.dataset, column)
        return share_IC, history_shares(self.dataset, self.cases, share_IC)

    def values(self, rankings: Rankings, cutoffs: Sequence[int]) -> dict[str, np.ndarray]:
        """Return each metric's value for every case, by name and cutoff, each of shape (B,)."""
        values_B = metric_values(rankings.item_index_BK, self._targets, cutoffs)
        popular = np.argsort(-self.counts_I[1:], kind="stable") + 1
        is_head_I = head_items(self.counts_I)
        for cutoff in cutoffs:
            items_BK = rankings.item_index_BK[:, :cutoff]
            relevance_BK = (items_BK == self._targets[:, None]).astype(float)
            values_B[f"serendipity@{cutoff}"] = serendipity_at_k(relevance_BK, items_BK, popular[:cutoff])
            values_B[f"novelty@{cutoff}"] = novelty_at_k(items_BK, self.counts_I)
            values_B[f"head share@{cutoff}"] = head_share_at_k(items_BK, is_head_I)
            if self.vectors_IE is not None:
                values_B[f"diversity@{cutoff}"] = diversity_at_k(items_BK, self.vectors_IE)
            if self._shares is not None:
                share_IC, history_BC = self._shares
                values_B[f"miscalibration@{cutoff}"] = miscalibration_at_k(items_BK, history_BC, share_IC)
        values_B["AUC"] = auc(rankings.above_B, rankings.tied_B, rankings.others_B)
        return values_B

    def catalogue(self, rankings: Rankings, cutoffs: Sequence[int]) -> dict[str, float]:
        """Return what all lists together show of the catalogue."""
        num_items = len(self.dataset.items)
        measures = {"coverage": coverage_at_k, "Gini": gini_at_k}
        return {
            f"{name}@{cutoff}": float(measure(rankings.item_index_BK[:, :cutoff], num_items))
            for cutoff in cutoffs
            for name, measure in measures.items()
        }

    @cached_property
    def slices(self) -> dict[str, np.ndarray]:
        """Which cases belong to each slice, by its name."""
        length_B = self.cases.history_end - self.cases.history_start
        count_B = self.counts_I[self._targets]
        is_head_B = head_items(self.counts_I)[self._targets]
        named = {
            "new item": count_B == 0,
            "tail item": (count_B > 0) & ~is_head_B,
            "head item": is_head_B & (count_B > 0),
            "history 1 to 5": length_B <= 5,
            "history 6 to 20": (length_B > 5) & (length_B <= 20),
            "history over 20": length_B > 20,
        }
        for column in self.columns:
            named |= column_slices(self.dataset, self.cases, column)
        return {name: belongs_B for name, belongs_B in named.items() if belongs_B.any()}

    def sliced(self, values: dict[str, np.ndarray]) -> dict[str, Slice]:
        """Return the metrics of every slice."""
        shown = {name: value_B for name, value_B in values.items() if name.split("@")[0] in SLICED}
        return {
            name: Slice(int(belongs_B.sum()), with_intervals({n: v[belongs_B] for n, v in shown.items()}))
            for name, belongs_B in self.slices.items()
        }


def metric_values(item_index_BK: np.ndarray, target_B: np.ndarray, cutoffs: Sequence[int]) -> dict[str, np.ndarray]:
    """Return the metrics that a held-out item decides, by name and cutoff: "NDCG@10"; each of shape (B,).

    Args:
        item_index_BK: Ranked items, best first; K is at least the largest cutoff.
        target_B: The held-out item of each list.
        cutoffs: How much of a list to read, for instance 5, 10 and 20.
    """
    relevance_BK = (item_index_BK == target_B[:, None]).astype(float)
    num_relevant_B = np.ones(len(target_B), dtype=int)
    return {
        f"{name}@{cutoff}": metric(relevance_BK[:, :cutoff], num_relevant_B)
        for cutoff in cutoffs
        for name, metric in METRICS.items()
    }


def with_intervals(values: dict[str, np.ndarray], seed: int = 0) -> dict[str, Metric]:
    """Return the mean of each metric over the cases for which it is defined, with its interval.

    A metric that is defined for no case is left out.
    """
    defined = {name: value_B for name, value_B in values.items() if not np.isnan(value_B).all()}
    if not defined:
        return {}
    low_M, high_M = bootstrap_intervals(np.stack(list(defined.values()), axis=1), seed)
    return {
        name: Metric(float(np.nanmean(value_B)), float(low), float(high))
        for (name, value_B), low, high in zip(defined.items(), low_M, high_M, strict=True)
    }
