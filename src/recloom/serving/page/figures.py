"""What the service counts -> the figures and pictures of the live page."""

import math
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from recloom.serving import metrics
from recloom.serving.live_model import CONTENT, POPULAR
from recloom.serving.middleware import QUIET

QUANTILES = (0.5, 0.95, 0.99)
FILES = "/page."
"""How the addresses of the pages' own style and script begin; nobody wonders how fast they are."""
SNAPSHOTS = 31
"""Looks at the counters that are kept; at one every ten seconds, five minutes."""
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 240, 56, 16, 30
"""The chart, and the room for its labels, in units of its own."""


# Requests


@dataclass(frozen=True)
class Snapshot:
    """The requests counted until a moment."""

    taken: float
    """Seconds since 1970."""
    buckets: Mapping[str, Mapping[float, float]]
    """By route, how many took at most so many seconds."""
    failed: float
    """Answers with a status of 500 and above."""


@dataclass(frozen=True)
class Traffic:
    """How many requests there were of a kind, and how long they took."""

    route: str
    count: int
    seconds: Sequence[float | None]
    """Time that half of them, 95 % and 99 % stay below, about; None where it is beyond the last bucket."""


@dataclass
class Watch:
    """The latest looks at the counters, so that the page can tell what happened lately."""

    snapshots: deque[Snapshot] = field(default_factory=lambda: deque(maxlen=SNAPSHOTS))

    def traffic(self) -> tuple[list[Traffic], float, int]:
        """Return the traffic by route, the seconds it was counted over, and how many requests failed in them."""
        now = _snapshot()
        if not self.snapshots:
            began = _first_request()
            self.snapshots.append(now if began is None else Snapshot(began, {}, 0))
        before = self.snapshots[0]
        self.snapshots.append(now)
        rows = []
        for route, counts in now.buckets.items():
            earlier = before.buckets.get(route, {})
            lately = {bound: count - earlier.get(bound, 0) for bound, count in counts.items()}
            if total := int(lately[math.inf]):
                rows.append(Traffic(route, total, [quantile(lately, share) for share in QUANTILES]))
        rows.sort(key=lambda row: -row.count)
        return rows, max(1.0, now.taken - before.taken), int(now.failed - before.failed)


def quantile(counts: Mapping[float, float], share: float) -> float | None:
    """Return the seconds below which a share of the requests stays, as if each bucket were filled evenly.

    Args:
        counts: How many took at most so many seconds, the last for any number.
        share: From 0 to 1.

    >>> quantile({0.1: 50, 0.2: 100, math.inf: 100}, 0.75)
    0.15
    """
    wanted = share * counts[math.inf]
    low, below = 0.0, 0.0
    for high, count in sorted(counts.items()):
        if count >= wanted:
            return None if math.isinf(high) else round(low + (high - low) * (wanted - below) / (count - below), 6)
        low, below = high, count
    return None


def _snapshot() -> Snapshot:
    buckets: dict[str, dict[float, float]] = {}
    failed = 0.0
    for sample in _samples(metrics.request_seconds):
        route = sample.labels.get("route")
        if sample.name.endswith("_bucket") and route not in QUIET and not route.startswith(FILES):
            counts = buckets.setdefault(route, {})
            bound = float(sample.labels["le"])
            counts[bound] = counts.get(bound, 0) + sample.value
        elif sample.name.endswith("_count") and sample.labels["status"] >= "500":
            failed += sample.value
    return Snapshot(time.time(), buckets, failed)


def _first_request() -> float | None:
    created = [sample.value for sample in _samples(metrics.request_seconds) if sample.name.endswith("_created")]
    return min(created, default=None)


def lists_by_maker() -> list[tuple[str, int, str]]:
    """Return what made the lists so far: its name, how many, and what it means where it is a fallback."""
    counts: Counter[str] = Counter()
    for sample in _samples(metrics.recommendations):
        if sample.name.endswith("_total"):
            counts[sample.labels["served_by"]] += int(sample.value)
    means = {CONTENT: "fallback: by what the items say", POPULAR: "fallback: what is popular now"}
    return [(name, count, means.get(name, "the model")) for name, count in counts.most_common()]


def total(metric: Any, **labels: str) -> int:
    """Return how much a counter has counted, under all labels or some."""
    return int(
        sum(
            sample.value
            for sample in _samples(metric)
            if sample.name.endswith("_total") and labels.items() <= sample.labels.items()
        )
    )


def _samples(metric: Any) -> list[Any]:
    return [sample for family in metric.collect() for sample in family.samples]


# Experiments


@dataclass(frozen=True)
class Curve:
    """The click rate of one variant over time, as paths of a picture."""

    name: str
    line: str
    band: str


@dataclass(frozen=True)
class Chart:
    """A picture of click rates."""

    curves: Sequence[Curve]
    heights: Sequence[tuple[float, str]]
    """Lines across, each with its label."""
    start: str
    end: str


def chart(report: Mapping[str, Any]) -> Chart | None:
    """Return the click rates of an experiment over time with their intervals; None where there is nothing yet."""
    curves = {variant["name"]: [point for point in variant["curve"] if point["low"] is not None]
              for variant in report["variants"]}  # fmt: skip
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return None
    start, end = min(point["time"] for point in points), max(point["time"] for point in points)
    # The first intervals are wide enough to flatten everything else: the later half decides how high the picture is.
    late = [point["high"] for curve in curves.values() for point in curve[len(curve) // 2 :]]
    top, step = _round_top(min(1.0, max(*late, *(point["value"] for point in points), 0.001)))

    def place(when: float, rate: float) -> str:
        across = (when - start) / (end - start) if end > start else 1.0
        up = min(max(rate, 0.0), top) / top
        return f"{LEFT + across * (WIDTH - LEFT):.1f},{_height(up):.1f}"

    drawn = []
    for name, curve in curves.items():
        upper = [place(point["time"], point["high"]) for point in curve]
        lower = [place(point["time"], point["low"]) for point in reversed(curve)]
        line = [place(point["time"], point["value"]) for point in curve]
        drawn.append(Curve(name, " ".join(line), " ".join(upper + lower)))
    rates = [step * number for number in range(round(top / step) + 1)]
    return Chart(drawn, [(_height(rate / top), f"{100 * rate:.3g} %") for rate in rates], moment(start), moment(end))


def _height(share: float) -> float:
    return round(TOP + (1 - share) * (HEIGHT - BOTTOM - TOP), 1)


def _round_top(most: float) -> tuple[float, float]:
    """Return a height that is easy to read and holds `most`, and the distance of the lines across."""
    size = 10 ** math.floor(math.log10(most))
    step = next(size * share for share in (0.2, 0.5, 1, 2) if most / (size * share) <= 5)
    return math.ceil(most / step - 1e-9) * step, step


def interval(estimate: Mapping[str, Any], unit: str) -> str:
    """Return an estimate in words: `8.1 % (7.2 to 9.0)`.

    Args:
        estimate: `value`, `low` and `high`, the latter None where nothing can be said.
        unit: Shares are told in hundredths wherever there is one.
    """
    scale = 100 if unit else 1
    value, low, high = (
        None if estimate[name] is None else f"{scale * estimate[name]:.3g}" for name in ("value", "low", "high")
    )
    return f"{value}{unit} ({low} to {high})" if low is not None else f"{value}{unit}"


def moment(seconds: float) -> str:
    """Return a time as people read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def duration(seconds: float | None) -> str:
    """Return how long something takes, as far as a histogram can tell.

    >>> duration(0.0042), duration(0.13), duration(2.5), duration(600)
    ('4.2 ms', '130 ms', '2.5 s', '10 min')
    """
    if seconds is None:
        return "over 5 s"
    for scale, unit in ((1 / 60, "min"), (1, "s"), (1000, "ms")):
        if seconds * scale >= (2 if unit == "min" else 1) or unit == "ms":
            number = seconds * scale
            break
    return f"{number:.1f} {unit}" if number < 10 and unit != "min" else f"{number:.0f} {unit}"
