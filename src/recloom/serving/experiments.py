"""Who is shown which variant, and what came of it, under a test that stays valid however often one looks."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

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
        if any(variant.share < 0 for variant in self.variants) or abs(total - 1) > 1e-6:
            raise ConfigError(f"the shares of the variants add up to {total:g}; they have to add up to 1")

    def check_models(self, known: Sequence[str]) -> None:
        """Make sure that all its models are there.

        Raises:
            ConfigError: One is not.
        """
        for name in (*(variant.model for variant in self.variants), *self.shadows):
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
    the normal mixture).

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


@dataclass
class _Person:
    shown: int = 0
    clicked: int = 0
    converted: int = 0
    revenue: float = 0.0

    def gains(self) -> tuple[float, float, float]:
        return float(self.clicked), float(self.converted), self.revenue


def report(experiment: Experiment, outcomes: Iterable[tuple[Any, ...]], conversions: Sequence[str]) -> dict[str, Any]:
    """Return what came of an experiment so far.

    A recommendation counts as clicked if anything was done with what it showed, as converted if a conversion was;
    revenue is the summed value of conversions; all are means over recommendations. People, not recommendations, are
    independent of each other, so standard errors are taken over people (the delta method for a ratio).

    Args:
        experiment: What was tried.
        outcomes: As `Store.outcomes` returns them.
        conversions: Behaviours that are conversions.
    """
    lists: dict[tuple[str, str], dict[str, Any]] = {}
    for variant, user, served, id_, behavior, value in outcomes:
        entry = lists.setdefault((variant, id_), {"user": user or id_, "served": served, "clicked": 0,
                                                  "converted": 0, "revenue": 0.0})  # fmt: skip
        if behavior is not None:
            entry["clicked"] = 1
            if behavior in conversions:
                entry["converted"] = 1
                entry["revenue"] += value or 0.0
    by_variant: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (variant, _), entry in lists.items():
        by_variant[variant].append(entry)
    control = experiment.variants[0].name
    moments = {variant.name: _moments(by_variant[variant.name]) for variant in experiment.variants}
    variants = []
    for variant in experiment.variants:
        mean, error, users, shown = moments[variant.name]
        told: dict[str, Any] = {"name": variant.name, "model": variant.model, "share": variant.share,
                                "recommendations": shown, "users": users}  # fmt: skip
        for place, metric in enumerate(METRICS):
            told[metric] = _spelled(always_valid(mean[place], error[place], users)) if users >= LEAST_USERS else None
            told[f"{metric}_value"] = round(float(mean[place]), 6) if shown else None
            if variant.name != control:
                told[f"{metric}_difference"] = _difference(moments[variant.name], moments[control], place)
        told["curve"] = _curve(by_variant[variant.name])
        variants.append(told)
    return {"name": experiment.name, "control": control, "least_users": LEAST_USERS, "variants": variants}


def _moments(entries: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Return mean and standard error of each metric, people, and recommendations."""
    people: dict[str, _Person] = defaultdict(_Person)
    for entry in entries:
        person = people[entry["user"]]
        person.shown += 1
        person.clicked += entry["clicked"]
        person.converted += entry["converted"]
        person.revenue += entry["revenue"]
    users, shown = len(people), len(entries)
    if not users:
        return np.zeros(3), np.zeros(3), 0, 0
    gain_UM = np.array([person.gains() for person in people.values()])
    shown_U = np.array([person.shown for person in people.values()], dtype=float)
    mean_M = gain_UM.sum(axis=0) / shown
    residual_UM = gain_UM - shown_U[:, None] * mean_M
    error_M = np.sqrt((residual_UM**2).sum(axis=0) * users / max(1, users - 1)) / shown
    return mean_M, error_M, users, shown


def _difference(one: tuple[Any, ...], other: tuple[Any, ...], place: int) -> dict[str, Any] | None:
    if min(one[2], other[2]) < LEAST_USERS:
        return None
    error = math.hypot(one[1][place], other[1][place])
    estimate = always_valid(one[0][place] - other[0][place], error, one[2] + other[2])
    is_clear = estimate.low > 0 or estimate.high < 0
    return {**_spelled(estimate), "p": round(estimate.p or 0.0, 6), "is_clear": is_clear}


def _spelled(estimate: Estimate) -> dict[str, Any]:
    def finite(value: float) -> float | None:
        return round(float(value), 6) if math.isfinite(value) else None

    return {"value": finite(estimate.value), "low": finite(estimate.low), "high": finite(estimate.high)}


def _curve(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the click rate with its interval as it stood at several times, the last one now."""
    ordered = sorted(entries, key=lambda entry: entry["served"])
    if not ordered:
        return []
    ends = sorted({math.ceil(len(ordered) * step / CURVE_POINTS) for step in range(1, CURVE_POINTS + 1)})
    points = []
    for end in ends:
        mean, error, users, _ = _moments(ordered[:end])
        estimate = always_valid(mean[0], error[0], users)
        points.append({"time": ordered[end - 1]["served"], **_spelled(estimate)})
    return points
