"""A model and what happened since -> how far the two have come apart, and what to do about it.

What is usual is read off the model's own log: it is cut into stretches of one size, and the distance between each and
the next is what happens without drift. The new log is cut alike. A measure is to be watched from `WATCH` standard
deviations above what is usual, and to be learned from `UPDATE` of them.

Shapes: N interactions, S stretches, V values of a column, B people asked.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from recloom.dataset import (
    Cases,
    CategoryColumn,
    Dataset,
    Growth,
    NumberColumn,
    grow,
    split_dataset,
    stretches_of,
)
from recloom.evaluation.significance import bootstrap_intervals, paired_difference
from recloom.events import Entities, Interactions
from recloom.models import TrainingData
from recloom.models.classic import PopularRecent
from recloom.recommender import Recommender

Verdict = Literal["unknown", "fine", "watch", "update", "retrain"]
VERDICTS: tuple[Verdict, ...] = ("unknown", "fine", "watch", "update", "retrain")
"""From nothing to do to most to do."""
WATCH, UPDATE = 4.0, 8.0
"""Standard deviations above what is usual."""
LEAST_SPREAD = 0.05
"""The standard deviation is taken for at least this share of what is usual: a few stretches can be alike by chance."""
MOSTLY_NEW = 0.5
"""Share of interactions with items never learned from which on training from nothing is advised."""
AGED = 0.9
"""Quality below this share of what was expected is to be learned away."""
SIGNIFICANT = 0.05
MOST_WINDOWS = 8
MOST_STRETCHES = 20
FEWEST_STRETCHES = 5
FEWEST_INTERACTIONS = 30
"""Shares of fewer interactions than that are mostly chance."""
FEWEST_CASES = 30
BINS = 10
"""Numbers are compared by the tenths of the model's own log."""


@dataclass(frozen=True)
class Measure:
    """One line of the table."""

    name: str
    value: float | None
    """As measured on the new log; None where it cannot be."""
    usual: float | None
    """What it is without drift; None where that is not known."""
    limit: float | None
    """From where on it is to be watched."""
    verdict: Verdict
    reason: str
    """A sentence."""
    interval: tuple[float, float] | None = None
    """In which the value lies with 95 % confidence, over people; None where it is not a mean over people."""


@dataclass(frozen=True)
class Window:
    """A part of the new log; all have the same number of interactions, one more or less."""

    begin: int
    """UTC seconds."""
    interactions: int
    values: dict[str, float]
    """By the name of the measure; those that cannot be taken are left out."""


@dataclass(frozen=True)
class Drift:
    """How far a model and what happened since have come apart."""

    interactions: int
    """New ones."""
    known: int
    """Interactions that the model's log holds already, and that were left out."""
    people_asked: int
    measures: list[Measure]
    windows: list[Window]
    verdict: Verdict
    """The gravest of all measures."""

    @property
    def advice(self) -> str:
        """Say what to do."""
        return {
            "unknown": "There is too little to tell; look again when more has happened.",
            "fine": "The model knows what happens; there is nothing to do.",
            "watch": "Something moves; look again soon, or update the model if that is cheap.",
            "update": "The model should learn what happened since.",
            "retrain": "The model should be trained again from nothing, on all the data or on the last of it.",
        }[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def measure_drift(recommender: Recommender, log: Interactions, items: Entities | None = None) -> Drift:
    """Hold what happened since against what the model learned from. Nothing is learned.

    Args:
        recommender: The model, with the log it was fitted on.
        log: What happened since; what the model's log holds already is left out.
        items: New items, which are known by their text.

    Raises:
        DataError: A column holds words in one log and numbers in the other.
        ArtifactError: New text is to be read by an encoder that is not there any more.
    """
    growth = grow(recommender.dataset, log, items, None)
    dataset, is_new_N = growth.dataset, growth.is_new_N
    if not is_new_N.any():
        nothing = Measure("interactions", 0, None, None, "fine", "nothing in the log is new")
        return Drift(0, growth.num_known, 0, [nothing], [], "fine")
    # Whoever was last in a second came last: a stable order keeps that of the log.
    order = np.argsort(dataset.timestamp, kind="stable")
    old, new = order[~is_new_N[order]], order[is_new_N[order]]
    model = recommender.over(dataset, ~is_new_N)
    inputs = _input_measures(model, old)
    size = min(len(new), len(old) // (FEWEST_STRETCHES + 1))
    stretches = _stretches(old, size)
    measures = [_judged(name, distance, stretches, new, size) for name, distance in inputs.items()]
    if model.text is None:
        measures.append(Measure("text", None, None, None, "unknown", "the model reads no text"))
    measures += [_unlearned_items(dataset, model.counts_I, old, new, size), _unknown_users(dataset, old, new, size)]
    cases = recommender.first_cases(growth)
    ndcg_B = model.ndcg_of(cases)
    measures += [_quality(recommender, ndcg_B), _against_popular(recommender, growth, cases, ndcg_B)]
    verdict = max((measure.verdict for measure in measures), key=VERDICTS.index)
    windows = [_window(part, inputs, old, dataset, model.counts_I, cases, ndcg_B) for part in _parts(new, MOST_WINDOWS)]
    return Drift(len(new), growth.num_known, len(cases), measures, windows, verdict)


def jensen_shannon(first_V: np.ndarray, second_V: np.ndarray) -> float:
    """Return the Jensen-Shannon distance of two distributions, the root of the divergence in bits: 0 to 1.

    Args:
        first_V: Counts of every value, shape (V,); their sum is above 0.
        second_V: Those of the other distribution, of the same values.

    Source: Lin (1991), https://doi.org/10.1109/18.61115; that its root is a distance: Endres and Schindelin (2003),
    https://doi.org/10.1109/TIT.2003.813506

    >>> jensen_shannon(np.array([1, 1]), np.array([2, 2])), jensen_shannon(np.array([1, 0]), np.array([0, 1]))
    (0.0, 1.0)
    """
    p_V, q_V = first_V / first_V.sum(), second_V / second_V.sum()
    middle_V = (p_V + q_V) / 2
    divergence = sum(
        float((side_V[side_V > 0] * np.log2(side_V[side_V > 0] / middle_V[side_V > 0])).sum()) for side_V in (p_V, q_V)
    )
    return float(np.sqrt(np.clip(divergence / 2, 0, 1)))


Distance = Callable[[np.ndarray, np.ndarray], float]
"""From the positions of two sets of interactions to how different they are."""


def _input_measures(model: Recommender, old: np.ndarray) -> dict[str, Distance]:
    """Return what is compared between stretches, by name."""
    dataset = model.dataset
    distances: dict[str, Distance] = {"popularity": _between_codes(dataset.item_index)}
    if model.text is not None:
        vectors_IE = model.text.leading_vectors

        def between_texts(first: np.ndarray, second: np.ndarray) -> float:
            means = [vectors_IE[dataset.item_index[part]].mean(axis=0, dtype=np.float64) for part in (first, second)]
            lengths = np.linalg.norm(means[0]) * np.linalg.norm(means[1])
            return 1 - float(means[0] @ means[1] / lengths) if lengths else 0.0

        distances["text"] = between_texts
    for name, column in {"behavior": dataset.behavior, **dataset.context}.items():
        if name == "behavior" and len(dataset.behavior.vocabulary) < 2:
            continue
        codes = _codes(column, old)
        distances["behaviour" if name == "behavior" else f"context {name}"] = _between_codes(codes)
    return distances


def _codes(column: CategoryColumn | NumberColumn, old: np.ndarray) -> np.ndarray:
    """Number the values of a column; 0 stands for none."""
    if isinstance(column, CategoryColumn):
        return column.values
    known = column.values[old]
    known = known[~np.isnan(known)]
    if len(known) == 0:
        return np.where(np.isnan(column.values), 0, 1)
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)))
    return np.where(np.isnan(column.values), 0, 1 + np.searchsorted(edges, column.values))


def _between_codes(codes_N: np.ndarray) -> Distance:
    num_values = int(codes_N.max()) + 1
    return lambda first, second: jensen_shannon(
        np.bincount(codes_N[first], minlength=num_values), np.bincount(codes_N[second], minlength=num_values)
    )


def _stretches(positions: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut the end of a log into stretches of the same size, the oldest first."""
    number = min(MOST_STRETCHES, len(positions) // size) if size else 0
    last = positions[len(positions) - number * size :]
    return np.split(last, number) if number else []


def _parts(positions: np.ndarray, most: int) -> list[np.ndarray]:
    """Cut a log into at most so many parts of equal size."""
    return np.array_split(positions, max(1, min(most, len(positions) // FEWEST_INTERACTIONS)))


def _judged(name: str, distance: Distance, stretches: list[np.ndarray], new: np.ndarray, size: int) -> Measure:
    """Hold the distance of the new log from the last old stretch against that between successive old ones."""
    if size < FEWEST_INTERACTIONS:
        return _too_little(name)
    value = float(np.mean([distance(stretches[-1], part) for part in _stretches(new, size)]))
    usual_S = np.array([distance(a, b) for a, b in pairwise(stretches)])
    return _held_against(name, value, usual_S, 1e-6)


def _too_little(name: str) -> Measure:
    reason = (
        f"too little to tell: {FEWEST_INTERACTIONS} new interactions are needed, and"
        f" {FEWEST_INTERACTIONS * (FEWEST_STRETCHES + 1)} that the model learned from"
    )
    return Measure(name, None, None, None, "unknown", reason)


def _held_against(name: str, value: float, usual_S: np.ndarray, least: float) -> Measure:
    usual = float(usual_S.mean())
    spread = max(float(usual_S.std(ddof=1)), LEAST_SPREAD * usual, least)
    deviations = (value - usual) / spread
    verdict: Verdict = "update" if deviations > UPDATE else "watch" if deviations > WATCH else "fine"
    if verdict == "fine":
        reason = "as between stretches of the model's own log"
    else:
        reason = f"{deviations:.0f} standard deviations above what is usual"
    return Measure(name, value, usual, usual + WATCH * spread, verdict, reason)


def _unlearned_items(dataset: Dataset, counts_I: np.ndarray, old: np.ndarray, new: np.ndarray, size: int) -> Measure:
    """Return the share of interactions with items that the model never learned."""
    value = float((counts_I[dataset.item_index[new]] == 0).mean())
    measure = _first_times("new items", value, dataset.item_index, old, size)
    if measure.verdict != "unknown" and value > MOSTLY_NEW and measure.verdict != "fine":
        return Measure(
            "new items", value, measure.usual, measure.limit, "retrain", "most is done with items it never learned"
        )
    return measure


def _unknown_users(dataset: Dataset, old: np.ndarray, new: np.ndarray, size: int) -> Measure:
    user_N = np.repeat(np.arange(len(dataset.user_offsets) - 1), np.diff(dataset.user_offsets))
    value = float((~np.isin(user_N[new], user_N[old])).mean())
    return _first_times("new users", value, user_N, old, size)


def _first_times(name: str, value: float, codes_N: np.ndarray, old: np.ndarray, size: int) -> Measure:
    """Hold a share of what is new against the share, in the later half of the old log, that was new in its stretch."""
    stretches = _stretches(old[len(old) // 2 :], min(size, len(old) // (2 * FEWEST_STRETCHES)))
    if size < FEWEST_INTERACTIONS or len(stretches) < FEWEST_STRETCHES:
        return _too_little(name)
    codes = codes_N[old]
    first_place = np.full(int(codes_N.max()) + 1, len(old))
    np.minimum.at(first_place, codes, np.arange(len(old)))
    begins = len(old) - len(stretches[0]) * np.arange(len(stretches), 0, -1)
    usual_S = np.array([(first_place[codes_N[part]] >= b).mean() for part, b in zip(stretches, begins, strict=True)])
    share = (usual_S.mean() * len(old) + 1) / (len(old) + 2)
    # Chance alone moves a share by this much.
    return _held_against(name, value, usual_S, float(np.sqrt(share * (1 - share) / size)) + 1 / size)


def _quality(recommender: Recommender, ndcg_B: np.ndarray) -> Measure:
    """Ask what everybody did first, and hold it against what was to be expected."""
    name = "NDCG@10"
    if len(ndcg_B) < FEWEST_CASES:
        reason = f"{len(ndcg_B)} people were known before; {FEWEST_CASES} are needed to tell"
        return Measure(name, float(ndcg_B.mean()) if len(ndcg_B) else None, None, None, "unknown", reason)
    value = float(ndcg_B.mean())
    low, high = (float(bound[0]) for bound in bootstrap_intervals(ndcg_B[:, None]))
    expected, source = _expected(recommender)
    if expected is None:
        return Measure(name, value, None, None, "unknown", "nothing was held out when it was fitted", (low, high))
    limit = AGED * expected
    verdict: Verdict = "update" if high < limit else "watch" if high < expected else "fine"
    relation = {"update": "far below", "watch": "below", "fine": "not below"}[verdict]
    return Measure(name, value, expected, limit, verdict, f"{relation} what it was {source}", (low, high))


def _expected(recommender: Recommender) -> tuple[float | None, str]:
    """Return how good the model was on what it had not learned, and where that was asked."""
    if not recommender.config.split.everything:
        split = split_dataset(recommender.dataset, recommender.config.split)
        config = recommender.config.training
        cases = split.test.sample(config.validation_cases, config.seed)
        if len(cases) >= FEWEST_CASES:
            return float(recommender.ndcg_of(cases).mean()), "on its own test"
    before: float | None = recommender.run.lineage.get("ndcg_at_10_before")
    if before is not None:
        return before, "when it was last updated"
    return recommender.run.validation_ndcg_at_10, "in validation"


def _against_popular(recommender: Recommender, growth: Growth, cases: Cases, ndcg_B: np.ndarray) -> Measure:
    """Ask what was popular in the last days the same."""
    name = "popular-recent"
    if len(cases) < FEWEST_CASES:
        return Measure(name, None, None, None, "unknown", "too few people were known before")
    popular = PopularRecent(PopularRecent.Config(), growth.dataset, None)
    known = TrainingData(growth.dataset, stretches_of(growth.dataset, ~growth.is_new_N))
    popular.count(known)
    counted = Recommender(growth.dataset, popular, recommender.config, None, known.item_counts(), recommender.run)
    theirs_B = counted.ndcg_of(cases)
    difference = paired_difference(ndcg_B, theirs_B)
    value, theirs = float(ndcg_B.mean()), float(theirs_B.mean())
    verdict: Verdict = "watch"
    reason = "the model cannot be told apart from what is popular"
    if difference.p_value < SIGNIFICANT:
        verdict = "fine" if difference.mean > 0 else "retrain"
        reason = f"what is popular would be the {'worse' if difference.mean > 0 else 'better'} list"
    return Measure(name, value, theirs, theirs, verdict, f"{reason} ({difference.low:+.4f} to {difference.high:+.4f})")


def _window(
    part: np.ndarray,
    inputs: dict[str, Distance],
    old: np.ndarray,
    dataset: Dataset,
    counts_I: np.ndarray,
    cases: Cases,
    ndcg_B: np.ndarray,
) -> Window:
    last = old[-len(part) :]
    values = {name: distance(last, part) for name, distance in inputs.items()} if len(last) else {}
    values["new items"] = float((counts_I[dataset.item_index[part]] == 0).mean())
    asked = np.isin(cases.target, part)
    if asked.any():
        values["NDCG@10"] = float(ndcg_B[asked].mean())
    return Window(int(dataset.timestamp[part[0]]), len(part), values)
