"""A dataset -> how often its model should learn what happened since: what each habit buys, and what it costs.

The log is cut at times with the same number of interactions between them. Every model is fitted on what came before the
first cut. Then, step by step, each is asked what everybody does first in the next stretch, and learns it, as often as
its habit says.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import polars as pl

from recloom.config import Tables
from recloom.dataset import SECONDS_PER_DAY, Dataset, Growth, log_of
from recloom.errors import ConfigError
from recloom.evaluation.significance import PairedDifference, paired_difference
from recloom.events import Entities, Interactions
from recloom.fitting import CACHE_NAME
from recloom.recommender import Recommender
from recloom.run_config import RunConfig
from recloom.training import Progress, told_where

Act = Literal["never", "update", "retrain", "window"]
GOOD_ENOUGH = 0.97
"""Share of the best habit's quality from which on a cheaper habit is advised."""


@dataclass(frozen=True)
class Habit:
    """What to do with what happened since, and after how many steps."""

    act: Act
    every: int = 1
    days: float | None = None
    """Of a window: fitted from nothing on the last so many days. A habit without a window learns from everything."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"a habit is kept every {self.every} steps; it has to be at least every step")
        if (self.act == "window") != (self.days is not None) or (self.days is not None and self.days <= 0):
            raise ConfigError("a window has a number of days above 0, and no other habit has one; write window:30")

    @classmethod
    def parse(cls, text: str) -> "Habit":
        """Read never, update, update:2, retrain, retrain:3 or window:30.

        Raises:
            ConfigError: It is none of these.

        >>> Habit.parse("update:2")
        Habit(act='update', every=2, days=None)
        """
        act, _, number = text.strip().partition(":")
        try:
            if act == "window":
                return cls("window", days=float(number))
            if act == "never" and not number:
                return cls("never")
            if act in ("update", "retrain"):
                return cls("update" if act == "update" else "retrain", int(number or 1))
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
        raise ConfigError(f"unknown habit {text!r}; write never, update, update:2, retrain, retrain:3 or window:30")

    @property
    def name(self) -> str:
        """What tables call it."""
        if self.act == "window":
            return f"retrain on {self.days:g} days"
        if self.act == "never" or self.every == 1:
            return {"never": "never", "update": "update each step", "retrain": "retrain each step"}[self.act]
        return f"{self.act} every {self.every} steps"


@dataclass(frozen=True)
class Course:
    """How a habit fared."""

    habit: Habit
    ndcg_at_10: list[float]
    """At each step, before learning it."""
    mean: float
    """NDCG@10 over all people and steps."""
    seconds: list[float]
    """Processor time of learning before each step, so that what else a machine does is not counted; the first fit,
    which nobody can do without, is left out."""

    @property
    def cost(self) -> float:
        """Seconds in all."""
        return sum(self.seconds)


@dataclass(frozen=True)
class Backtest:
    """How several habits fared on the same steps."""

    model: str
    starts: list[int]
    """When each step begins, UTC seconds."""
    cases: list[int]
    """People asked at each step."""
    fit_seconds: float
    """Processor time of the first fit."""
    courses: list[Course]
    differences: dict[str, PairedDifference]
    """Each habit's NDCG@10 minus that of retraining at each step, over all steps and people."""
    from_best: dict[str, PairedDifference] = field(default_factory=dict)
    """The same minus that of the habit with the highest."""

    @property
    def advised(self) -> Course:
        """The cheapest habit that is good enough."""
        best = max(course.mean for course in self.courses)
        return min((c for c in self.courses if c.mean >= GOOD_ENOUGH * best), key=lambda c: (c.cost, -c.mean))

    @property
    def advice(self) -> str:
        """Say in a sentence which habit to take, and why."""
        best, advised = max(self.courses, key=lambda course: course.mean), self.advised
        sentence = f"Take “{advised.habit.name}”: NDCG@10 {advised.mean:.4f} for {advised.cost:.1f} s of learning"
        if advised is best:
            return f"{sentence}, the best there is, and nothing cheaper comes within {1 - GOOD_ENOUGH:.0%} of it."
        sentence = (
            f"{sentence}, the cheapest within {1 - GOOD_ENOUGH:.0%} of the best, “{best.habit.name}”, which has"
            f" {best.mean:.4f} for {best.cost:.1f} s."
        )
        difference = self.from_best.get(advised.habit.name)
        if difference is not None and difference.low < (GOOD_ENOUGH - 1) * best.mean:
            sentence += (
                f" These people cannot rule out that it loses up to {-difference.low / best.mean:.0%} (the end of a"
                " 95 % interval)."
            )
        return sentence

    def share_of_retraining(self, course: Course) -> float | None:
        """Return a habit's seconds over those of retraining at each step; None where that was not tried."""
        retraining = sum(other.cost for other in self.courses if other.habit == Habit("retrain"))
        return course.cost / retraining if retraining else None


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

    A person is asked at each step for their first interaction in it, with all that they did before the step as
    history. The catalogue is what anything had happened with by the end of the step: new items go by their text.

    Args:
        dataset: What people did.
        habits: Those to compare; retraining at each step is what the others are held against.
        model: What is fitted.
        settings: As for `Recommender.fit`; the split is decided here.
        steps: Stretches to ask about, one after the other.
        start: Share of the interactions that comes before the first.
        progress: Told which step and habit is at hand, and what goes on there.

    Raises:
        ConfigError: The log is too short for so many steps, or a habit is named twice or cannot be kept.
    """
    if steps < 1 or not 0 < start < 1:
        raise ConfigError(f"a backtest needs at least one step and a start between 0 and 1, not {steps} and {start}")
    if not habits or len(set(habits)) < len(habits):
        raise ConfigError("a backtest compares habits; name some, each of them once")
    cuts = np.quantile(dataset.timestamp, np.linspace(start, 1, steps + 1)).astype(np.int64).tolist()
    cuts[-1] += 1
    if len(set(cuts)) <= steps or cuts[0] <= dataset.timestamp.min():
        raise ConfigError(f"the log has too few different times for {steps} steps; take fewer, or start earlier")
    log = _Log(dataset)
    fixed: dict[str, dict[str, Any]] = {name: dict(options) for name, options in (settings or {}).items()}
    fixed["split"] = {**fixed.get("split", {}), "everything": True}
    # Whether people come back is measured once: habits that answer different questions could not be compared.
    include_seen = RunConfig.resolve(model, log.dataset_until(cuts[0]), fixed).include_seen
    fixed["recommend"] = {"include_seen": include_seen}
    fitted: dict[tuple[int, float | None], tuple[Recommender, float]] = {}

    def fit(until: int, days: float | None, progress: Progress | None) -> tuple[Recommender, float]:
        # Habits that fit the same share the fit, and each is charged for it.
        if (until, days) not in fitted:
            tables = fixed if days is None else {**fixed, "split": {**fixed["split"], "train_days": days}}
            known = log.dataset_until(until)
            log.hand_on_texts(known)
            began = time.process_time()
            recommender = Recommender.fit(known, model, settings=tables, progress=progress)
            fitted[until, days] = recommender, time.process_time() - began
        return fitted[until, days]

    keepers = [_Keeper(habit) for habit in habits]
    ndcg: list[list[np.ndarray]] = []
    fit_seconds = 0.0
    for step, (begin, end) in enumerate(pairwise(cuts)):
        asked = log.dataset_until(end)
        for keeper in keepers:
            told = told_where(progress, f"step {step + 1} of {steps}, {keeper.habit.name}")
            keeper.act(log, step, cuts, partial(fit, progress=told), told)
        if step == 0:
            fit_seconds = max(seconds for _, seconds in fitted.values())
        ndcg.append([keeper.foresee(asked, begin) for keeper in keepers])
        if len(ndcg[-1][0]) == 0:
            raise ConfigError(f"nobody with a history does anything in step {step + 1}; take fewer steps")
        fitted.clear()
    over_all = [np.concatenate([at_step[place] for at_step in ndcg]) for place in range(len(habits))]
    courses = [
        Course(keeper.habit, [float(at_step[place].mean()) for at_step in ndcg], float(over_all[place].mean()), seconds)
        for place, (keeper, seconds) in enumerate((keeper, keeper.seconds) for keeper in keepers)
    ]
    cases = [len(at_step[0]) for at_step in ndcg]
    best = max(habits, key=lambda habit: courses[list(habits).index(habit)].mean)
    from_retraining, from_best = (_differences(habits, over_all, other) for other in (Habit("retrain"), best))
    return Backtest(model, cuts[:-1], cases, fit_seconds, courses, from_retraining, from_best)


def _differences(habits: Sequence[Habit], over_all: Sequence[np.ndarray], other: Habit) -> dict[str, PairedDifference]:
    """Hold every habit against another one; nothing where that was not tried."""
    if other not in habits:
        return {}
    against = over_all[list(habits).index(other)]
    return {
        habit.name: paired_difference(values, against)
        for habit, values in zip(habits, over_all, strict=True)
        if habit != other
    }


class _Keeper:
    """A model kept by one habit."""

    def __init__(self, habit: Habit) -> None:
        self.habit = habit
        self.seconds: list[float] = []
        self._learned: Recommender
        self._until = 0

    def act(
        self,
        log: "_Log",
        step: int,
        cuts: Sequence[int],
        fit: Callable[[int, float | None], tuple[Recommender, float]],
        progress: Progress | None,
    ) -> None:
        """Learn what came before a step, if it is time to."""
        seconds = 0.0
        if step == 0:
            self._learned, _ = fit(cuts[0], self.habit.days)
        elif self.habit.act == "never" or step % self.habit.every:
            self.seconds.append(seconds)
            return
        elif self.habit.act == "update":
            news, items = log.between(self._until, cuts[step]), log.items_until(cuts[step])
            began = time.process_time()
            self._learned = self._learned.learn(news, items, progress=progress)
            seconds = time.process_time() - began
        else:
            self._learned, seconds = fit(cuts[step], self.habit.days)
        self._until = cuts[step]
        self.seconds.append(seconds)

    def foresee(self, dataset: Dataset, begin: int) -> np.ndarray:
        """Ask what everybody does first from a time on, in a log that goes further than what was learned; (B,)."""
        learned_N = dataset.timestamp < self._until
        if self.habit.days is not None:
            newest = dataset.timestamp[learned_N].max()
            learned_N &= dataset.timestamp > newest - round(self.habit.days * SECONDS_PER_DAY)
        model = self._learned.over(dataset, learned_N)
        # Everybody is asked the same: the order of people is the dataset's, whatever the model's was.
        return model.ndcg_of(model.first_cases(Growth(dataset, dataset.timestamp >= begin, 0, [])))


class _Log:
    """What happened, to be cut by time."""

    def __init__(self, dataset: Dataset) -> None:
        self._log = log_of(dataset)
        self._since = int(dataset.timestamp.min())  # below 0 before 1970
        self._items, self._users = dataset.item_table, dataset.user_table
        self._fitted: Dataset | None = None
        first = self._log.group_by("item_id").agg(pl.col("timestamp").min().alias("\0first"))
        self._first = first.with_columns(pl.col("item_id").cast(pl.String))

    def between(self, begin: int, end: int) -> Interactions:
        table = self._log.filter((pl.col("timestamp") >= begin) & (pl.col("timestamp") < end))
        return Interactions.of(table)

    def items_until(self, end: int) -> Entities:
        """Return the items with which something had happened by then."""
        known = self._first.filter(pl.col("\0first") < end)
        table = self._items.join(known, on="item_id", how="semi", maintain_order="left")
        return Entities.of(table)

    def dataset_until(self, end: int) -> Dataset:
        return Dataset.from_tables(self.between(self._since, end), self.items_until(end), Entities.of(self._users))

    def hand_on_texts(self, dataset: Dataset) -> None:
        """Let a dataset that is to be fitted have the vectors of texts that were read for the one before.

        Whoever trains anew reads a text once, as `recloom fit` does; else updating would look cheaper than it is.
        """
        if self._fitted is not None and (read := self._fitted.path.with_name(CACHE_NAME)).exists():
            shutil.copyfile(read, dataset.path.with_name(CACHE_NAME))
        self._fitted = dataset


def to_json(result: Backtest) -> Mapping[str, Any]:
    """Return everything as plain values; `from_json` reads it."""
    return {**asdict(result), "advice": result.advice}


def from_json(values: Mapping[str, Any]) -> Backtest:
    """Return what `to_json` was given."""
    courses = [Course(**{**course, "habit": Habit(**course["habit"])}) for course in values["courses"]]
    differences = {
        table: {name: PairedDifference(**difference) for name, difference in values.get(table, {}).items()}
        for table in ("differences", "from_best")
    }
    fields = {name: value for name, value in values.items() if name != "advice"}
    return Backtest(**{**fields, "courses": courses, **differences})
