"""A dataset -> how often its model should learn what happened since: what each habit buys, and what it costs.

The log is cut at times with the same number of interactions between them. Every model is fitted on what came before the
first cut. Then, step by step, each is asked what everybody does first in the next stretch, and learns it, as often as
its habit says.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import polars as pl

from recloom.config import Tables
from recloom.dataset import Dataset, log_of
from recloom.errors import ConfigError
from recloom.evaluation.significance import PairedDifference, paired_difference
from recloom.events import Entities, Interactions, ReadReport
from recloom.recommender import Recommender
from recloom.training import Progress

Act = Literal["never", "update", "retrain"]


@dataclass(frozen=True)
class Habit:
    """What to do with what happened since, and after how many steps."""

    act: Act
    every: int = 1

    @property
    def name(self) -> str:
        """What tables call it."""
        if self.act == "never" or self.every == 1:
            return {"never": "never", "update": "update each step", "retrain": "retrain each step"}[self.act]
        return f"{self.act} every {self.every} steps"


@dataclass(frozen=True)
class Course:
    """How a habit fared."""

    habit: Habit
    ndcg_at_10: list[float]
    """At each step, before learning it."""
    seconds: list[float]
    """Spent on learning before each step; the first fit, which all share, is left out."""


@dataclass(frozen=True)
class Backtest:
    """How several habits fared on the same steps."""

    starts: list[int]
    """When each step begins, UTC seconds."""
    cases: list[int]
    """People asked at each step."""
    fit_seconds: float
    """Of the first fit."""
    courses: list[Course]
    differences: dict[str, PairedDifference]
    """Each habit's NDCG@10 minus that of retraining at each step, over all steps and people."""


def backtest(
    dataset: Dataset,
    habits: Sequence[Habit],
    *,
    model: str = "weave",
    settings: Tables | None = None,
    steps: int = 5,
    start: float = 0.7,
    progress: Progress | None = None,
) -> Backtest:
    """Replay the end of a log.

    Args:
        dataset: What people did.
        habits: Those to compare; retraining at each step is what the others are held against.
        model: What is fitted.
        settings: As for `Recommender.fit`; the split is decided here.
        steps: Stretches to ask about, one after the other.
        start: Share of the interactions that comes before the first.
        progress: Told what is going on.

    Raises:
        ConfigError: The log is too short for so many steps.
    """
    if steps < 1 or not 0 < start < 1:
        raise ConfigError(f"a backtest needs at least one step and a start between 0 and 1, not {steps} and {start}")
    cuts = np.quantile(dataset.timestamp, np.linspace(start, 1, steps + 1)).astype(np.int64)
    cuts[-1] += 1
    if len(np.unique(cuts)) <= steps:
        raise ConfigError(f"the log has too few different times for {steps} steps; take fewer, or start earlier")
    log = _Log(dataset)
    fixed = {**(settings or {}), "split": {**(settings or {}).get("split", {}), "everything": True}}

    def fit(until: int) -> tuple[Recommender, float]:
        began = time.monotonic()
        known = log.dataset_until(until)
        return Recommender.fit(known, model, settings=fixed, progress=progress), time.monotonic() - began

    first, fit_seconds = fit(cuts[0])
    keepers = [_Keeper(habit, first) for habit in habits]
    ndcg: list[list[np.ndarray]] = []
    for step, (begin, end) in enumerate(pairwise(cuts)):
        if step:
            for keeper in keepers:
                keeper.act(log, step, cuts, fit)
        news, items = log.between(begin, end), log.items_until(end)
        ndcg.append([keeper.recommender.foresee(news, items) for keeper in keepers])
    courses = [
        Course(keeper.habit, [float(at_step[place].mean()) for at_step in ndcg], keeper.seconds)
        for place, keeper in enumerate(keepers)
    ]
    return Backtest(
        cuts[:-1].tolist(), [len(at_step[0]) for at_step in ndcg], fit_seconds, courses, _differences(habits, ndcg)
    )


def _differences(habits: Sequence[Habit], ndcg: Sequence[Sequence[np.ndarray]]) -> dict[str, PairedDifference]:
    retrained = Habit("retrain")
    if retrained not in habits:
        return {}
    over_all = [np.concatenate([at_step[place] for at_step in ndcg]) for place in range(len(habits))]
    against = over_all[list(habits).index(retrained)]
    return {
        habit.name: paired_difference(values, against)
        for habit, values in zip(habits, over_all, strict=True)
        if habit != retrained
    }


class _Keeper:
    """A model kept by one habit."""

    def __init__(self, habit: Habit, first: Recommender) -> None:
        self.habit, self.recommender = habit, first
        self.seconds = [0.0]
        self._learned = first
        self._learned_step = 0

    def act(self, log: "_Log", step: int, cuts: np.ndarray, fit: Any) -> None:
        """Learn, if it is time to; else only let the histories grow."""
        if self.habit.act == "never" or step % self.habit.every:
            self.recommender = self._learned.over(log.dataset_until(cuts[step]))
            self.seconds.append(0.0)
            return
        if self.habit.act == "retrain":
            self._learned, seconds = fit(cuts[step])
        else:
            news = log.between(cuts[self._learned_step], cuts[step])
            began = time.monotonic()
            self._learned = self._learned.learn(news, log.items_until(cuts[step]))
            seconds = time.monotonic() - began
        self.recommender, self._learned_step = self._learned, step
        self.seconds.append(seconds)


class _Log:
    """What happened, to be cut by time."""

    def __init__(self, dataset: Dataset) -> None:
        self._log = log_of(dataset)
        self._items, self._users = dataset.item_table, dataset.user_table
        first = self._log.group_by("item_id").agg(pl.col("timestamp").min().alias("\0first"))
        self._first = first.with_columns(pl.col("item_id").cast(pl.String))

    def between(self, begin: int, end: int) -> Interactions:
        table = self._log.filter((pl.col("timestamp") >= begin) & (pl.col("timestamp") < end))
        return Interactions(table, _report(table), pl.DataFrame())

    def items_until(self, end: int) -> Entities:
        """Return the items with which something had happened by then."""
        known = self._first.filter(pl.col("\0first") < end)
        table = self._items.join(known, on="item_id", how="semi", maintain_order="left")
        return Entities(table, _report(table), pl.DataFrame())

    def dataset_until(self, end: int) -> Dataset:
        users = Entities(self._users, _report(self._users), pl.DataFrame())
        return Dataset.from_tables(self.between(0, end), self.items_until(end), users)


def _report(table: pl.DataFrame) -> ReadReport:
    return ReadReport([], len(table), len(table), {}, {})


def to_json(result: Backtest) -> Mapping[str, Any]:
    """Return everything as plain values."""
    return {
        "starts": result.starts,
        "cases": result.cases,
        "fit_seconds": result.fit_seconds,
        "courses": [
            {"habit": course.habit.name, "ndcg_at_10": course.ndcg_at_10, "seconds": course.seconds}
            for course in result.courses
        ],
        "differences": {name: vars(difference) for name, difference in result.differences.items()},
    }
