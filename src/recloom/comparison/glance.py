"""A dataset in the few numbers and curves that say what kind of problem it is."""

from dataclasses import dataclass

import numpy as np

from recloom.dataset import SECONDS_PER_DAY, Dataset, Split
from recloom.models import TrainingData

CURVE_POINTS = 80
TIMELINE_BINS = 60


@dataclass(frozen=True)
class Glance:
    """What to know of a dataset before reading any table about it."""

    users: int
    items: int
    interactions: int
    first_time: int
    """UTC seconds."""
    last_time: int
    median_history: float
    ties: float
    """Share of interactions at the same time as the user's one before."""
    repeats: float
    """Share of interactions with an item the user had before."""
    items_with_text: float
    """Share of the catalogue that says anything beside its id."""
    new_items_asked: float
    """Share of test questions whose answer nobody took in the training data."""
    history_lengths: list[tuple[int, int]]
    """Length of a history up to which, and users of at most that many: a histogram over doubling lengths."""
    popularity: list[tuple[int, int]]
    """Rank of an item by popularity, and its interactions."""
    timeline: list[tuple[int, int]]
    """Where each stretch of time begins, UTC seconds, and its interactions."""


def glance_at(dataset: Dataset, split: Split, has_text_I: np.ndarray) -> Glance:
    """Measure a dataset.

    Args:
        dataset: What to look at.
        split: What is asked of it.
        has_text_I: Whether each item says anything, by item index.
    """
    lengths = np.diff(dataset.user_offsets)[1:]
    lengths = lengths[lengths > 0]
    user_N = np.repeat(np.arange(len(dataset.user_offsets) - 1), np.diff(dataset.user_offsets))
    same_user = user_N[1:] == user_N[:-1]
    same_time = dataset.timestamp[1:] == dataset.timestamp[:-1]
    pairs = len(np.unique(user_N * (len(dataset.items) + 1) + dataset.item_index))
    counts = np.sort(np.bincount(dataset.item_index, minlength=len(dataset.items) + 1)[1:])[::-1]
    ranks = np.unique(np.geomspace(1, max(1, len(counts)), CURVE_POINTS).astype(int))
    edges = 2 ** np.arange(int(np.ceil(np.log2(max(2, lengths.max())))) + 1)
    first, last = int(dataset.timestamp.min()), int(dataset.timestamp.max())
    times = np.linspace(first, last + 1, TIMELINE_BINS + 1)
    learned_I = TrainingData(dataset, split.full).item_counts()
    asked = dataset.item_index[split.test.target]
    return Glance(
        users=len(lengths),
        items=len(dataset.items),
        interactions=dataset.num_interactions,
        first_time=first,
        last_time=last,
        median_history=float(np.median(lengths)),
        ties=float((same_user & same_time).sum() / max(1, same_user.sum())),
        repeats=1 - pairs / max(1, dataset.num_interactions),
        items_with_text=float(has_text_I[1:].mean()),
        new_items_asked=float((learned_I[asked] == 0).mean()) if len(asked) else 0.0,
        history_lengths=_histogram(lengths, edges),
        popularity=[(int(rank), int(counts[rank - 1])) for rank in ranks],
        timeline=[
            (int(begin), int(count))
            for begin, count in zip(times[:-1], np.histogram(dataset.timestamp, times)[0], strict=True)
        ]
        if last - first > SECONDS_PER_DAY
        else [],
    )


def _histogram(lengths: np.ndarray, edges: np.ndarray) -> list[tuple[int, int]]:
    """Return each edge, and how many lengths are at most that and above the one before."""
    place = np.searchsorted(edges, lengths)
    counts = np.bincount(place, minlength=len(edges))
    return [(int(edge), int(count)) for edge, count in zip(edges, counts, strict=True)]
