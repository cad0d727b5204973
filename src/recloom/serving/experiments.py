"""Who is shown which variant, and what came of it, under a test that stays valid however often one looks."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from recloom.config import suggestion
from recloom.errors import ConfigError
from recloom.retrieval import Rules

ALPHA = 0.05
"""How often a difference may be claimed where there is none, over all looks together."""
TUNED_FOR_USERS = 10_000
"""People at which the intervals are narrowest; they hold at any number."""
LEAST_USERS = 50
"""People of a variant before which nothing is claimed: the intervals rest on the central limit theorem."""
CURVE_POINTS = 24
METRICS = ("ctr", "conversion", "revenue")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of recommending."""

    name: str
    model: str = "default"
    """Which of the service's models makes the lists."""
    share: float = 0.5
    """Share of the people who get them; the shares of all variants add up to 1."""
    rules: Rules = field(default_factory=Rules)
    """What its lists obey beside the service's own rules."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Variants that are compared; the first is the one the others are held against."""

    name: str
    variants: tuple[Variant, ...]
    shadows: tuple[str, ...] = ()
    """Models that are asked as well, without anybody seeing their lists."""

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if not self.name or len(set(names)) < len(names) or not names:
            raise ConfigError("an experiment needs a name, and variants with different names")
        for name in (self.name, *names):
            if len(name) > 256 or not name.isprintable():
                raise ConfigError(f"the name {name[:20]!r} is too long or holds control characters")
        total = sum(variant.share for variant in self.variants)
        if not (all(variant.share >= 0 for variant in self.variants) and abs(total - 1) <= 1e-6):
            raise ConfigError(f"the shares of the variants add up to {total:g}; they have to add up to 1")

    @property
    def models(self) -> tuple[str, ...]:
        """All models that it asks."""
        return (*(variant.model for variant in self.variants), *self.shadows)

    def check_models(self, known: Sequence[str]) -> None:
        """Make sure that all its models are there.

        Raises:
            ConfigError: One is not.
        """
        for name in self.models:
            if name not in known:
                raise ConfigError(f"the service has no model {name!r}; {suggestion(name, known)}")

    def variant_of(self, user_id: str) -> Variant:
        """Return the variant of a person: the same one every time, on every instance."""
        digest = hashlib.sha256(f"{self.name}\0{user_id}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        for variant in self.variants:
            place -= variant.share
            if place < 0:
                return variant
        return max(self.variants, key=lambda variant: variant.share)  # rounding left a gap at the end


@dataclass(frozen=True)
class Estimate:
    """A mean over recommendations, with an interval that holds at all times together."""

    value: float
    low: float
    high: float
    p: float | None = None
    """Of a difference: always-valid, so that it may be looked at every day."""


def always_valid(value: float, standard_error: float, users: int) -> Estimate:
    """Return the interval of a confidence sequence with the coverage 1 - ALPHA, and the p-value against 0.

    The chance that the truth is ever outside, over all times at which one looks, is at most ALPHA (asymptotically, by
    the normal mixture), as new people keep coming; where the same few return for ever, it is a little more.

    Args:
        value: A mean or a difference of means.
        standard_error: Its standard error.
        users: Independent units it rests on.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), "Time-uniform central limit theory and asymptotic
    confidence sequences", https://arxiv.org/abs/2103.06476, theorem 2.2.
    """
    if users < 2 or standard_error <= 0:
        return Estimate(value, -math.inf, math.inf, 1.0)
    squared_rho = (-2 * math.log(ALPHA) + math.log(-2 * math.log(ALPHA)) + 1) / TUNED_FOR_USERS
    information = users * squared_rho
    radius = standard_error * math.sqrt(
        2 * (information + 1) / information * (0.5 * math.log(information + 1) - math.log(ALPHA))
    )
    exponent = 0.5 * math.log(information + 1) - (value / standard_error) ** 2 * information / (2 * (information + 1))
    return Estimate(value, value - radius, value + radius, min(1.0, math.exp(min(0.0, exponent))))


def report(
    experiment: Experiment,
    outcomes: Iterable[tuple[Any, ...]],
    conversions: Sequence[str],
    weights: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return what came of an experiment so far.

    A recommendation counts as clicked if anything was done with what it showed that counts for something, as converted
    if a conversion was; revenue is the summed value of conversions; all are means over recommendations. People, not
    recommendations, are independent of each other, so standard errors are taken over people (the delta method for a
    ratio).

    Args:
        experiment: What was tried.
        outcomes: As `Store.outcomes` returns them.
        conversions: Behaviours that are conversions.
        weights: What behaviours count for, 1 where nothing is said; those of 0 and below are no clicks.
    """
    ignored = [behavior for behavior, weight in (weights or {}).items() if weight <= 0]
    lists = _lists(outcomes, conversions, ignored)
    control = experiment.variants[0].name
    shown = {
        variant.name: _Shown.of(lists.filter(pl.col("variant") == variant.name)) for variant in experiment.variants
    }
    moments = {name: one.moments() for name, one in shown.items()}
    variants = []
    for variant in experiment.variants:
        mean, error, users, count = moments[variant.name]
        told: dict[str, Any] = {"name": variant.name, "model": variant.model, "share": variant.share,
                                "recommendations": count, "users": users}  # fmt: skip
        for place, metric in enumerate(METRICS):
            told[metric] = _spelled(always_valid(mean[place], error[place], users)) if users >= LEAST_USERS else None
            told[f"{metric}_value"] = round(float(mean[place]), 6) if count else None
            if variant.name != control:
                told[f"{metric}_difference"] = _difference(moments[variant.name], moments[control], place)
        told["curve"] = _curve(shown[variant.name])
        variants.append(told)
    return {"name": experiment.name, "control": control, "least_users": LEAST_USERS, "variants": variants}


def _lists(outcomes: Iterable[tuple[Any, ...]], conversions: Sequence[str], ignored: Sequence[str]) -> pl.DataFrame:
    """Return one row a recommendation, in the order of time: who was shown it, and what came of it."""
    schema = {"variant": pl.String, "user": pl.String, "served": pl.Int64, "id": pl.String, "behavior": pl.String,
              "value": pl.Float64}  # fmt: skip
    converts = pl.col("behavior").is_in(list(conversions)).fill_null(False)
    counts = pl.col("behavior").is_not_null() & ~pl.col("behavior").is_in(list(ignored)).fill_null(False)
    return (
        pl.DataFrame(list(outcomes), schema=schema, orient="row")
        .group_by("variant", "id")
        .agg(
            pl.col("user").first().fill_null(pl.col("id").first()),
            pl.col("served").first(),
            counts.any().cast(pl.Float64).alias("clicked"),
            converts.any().cast(pl.Float64).alias("converted"),
            pl.col("value").filter(converts).sum().alias("revenue"),
        )
        .sort("served", "id")
    )


@dataclass(frozen=True)
class _Shown:
    """The recommendations of one variant, in the order of time; N of them."""

    person_N: np.ndarray
    served_N: np.ndarray
    gain_NM: np.ndarray

    @classmethod
    def of(cls, lists: pl.DataFrame) -> "_Shown":
        _, person_N = np.unique(lists["user"].to_numpy().astype(object), return_inverse=True)
        return cls(person_N, lists["served"].to_numpy(), lists.select("clicked", "converted", "revenue").to_numpy())

    def moments(self, first: int | None = None) -> tuple[np.ndarray, np.ndarray, int, int]:
        """Return mean and standard error of each metric, people, and recommendations, of the first so many."""
        person_N, gain_NM = self.person_N[:first], self.gain_NM[:first]
        if not len(person_N):
            return np.zeros(3), np.zeros(3), 0, 0
        shown_U = np.bincount(person_N)
        is_there_U = shown_U > 0
        gain_UM = np.stack([np.bincount(person_N, gain_N)[is_there_U] for gain_N in gain_NM.T], axis=1)
        shown_U = shown_U[is_there_U]
        users, count = len(shown_U), len(person_N)
        mean_M = gain_UM.sum(axis=0) / count
        residual_UM = gain_UM - shown_U[:, None] * mean_M
        error_M = np.sqrt((residual_UM**2).sum(axis=0) * users / max(1, users - 1)) / count
        return mean_M, error_M, users, count


def _difference(one: tuple[Any, ...], other: tuple[Any, ...], place: int) -> dict[str, Any] | None:
    if min(one[2], other[2]) < LEAST_USERS:
        return None
    error = math.hypot(one[1][place], other[1][place])
    estimate = always_valid(one[0][place] - other[0][place], error, one[2] + other[2])
    is_clear = bool(estimate.low > 0 or estimate.high < 0)
    return {**_spelled(estimate), "p": round(estimate.p or 0.0, 6), "is_clear": is_clear}


def _spelled(estimate: Estimate) -> dict[str, Any]:
    def finite(value: float) -> float | None:
        return round(float(value), 6) if math.isfinite(value) else None

    return {"value": finite(estimate.value), "low": finite(estimate.low), "high": finite(estimate.high)}


def _curve(shown: _Shown) -> list[dict[str, Any]]:
    """Return the click rate, with its interval, of what had been shown by several times; the last one is now."""
    count = len(shown.served_N)
    points = []
    for end in sorted({math.ceil(count * step / CURVE_POINTS) for step in range(1, CURVE_POINTS + 1)} - {0}):
        mean, error, users, _ = shown.moments(end)
        points.append({"time": int(shown.served_N[end - 1]), **_spelled(always_valid(mean[0], error[0], users))})
    return points
