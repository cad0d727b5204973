"""Which interactions a model may learn from, and which it is asked to predict.

Three protocols. `temporal`: one split time for everybody, and a test case is a user's first interaction
after it. `leave-one-out`: each user's last interaction is the test, the one before it validation, as
most papers do. `user-disjoint`: some users are not learned from at all, and asked for their last interaction.
"""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recloom.dataset.dataset import Dataset
from recloom.errors import ConfigError

Protocol = Literal["temporal", "leave-one-out", "user-disjoint"]
PROTOCOLS = ("temporal", "leave-one-out", "user-disjoint")
Ties = Literal["strict", "file"]
SECONDS_PER_DAY = 86_400
VALIDATION_TIMES = 10
"""Times at which temporal validation asks what comes next."""
INTERACTIONS_AT_ONCE = 2**22
"""Interactions of which arrays are made: 32 MB for each number that is made of one."""
TIME_BINS = 2**16
"""Stretches of time that are told apart at once when the time of a split is looked for."""


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How interactions are held out: the [split] table of a run file."""

    protocol: Protocol = "temporal"
    """One split time for everybody, each user's last interaction, or users of whom nothing is learned."""
    ties: Ties | None = None
    """"strict" removes from a history what shares the target's timestamp, "file" trusts the log's order within a
    timestamp. Unset: strict under temporal, file under the others, as papers do."""
    split_time: int | None = None
    """Temporal only: the test begins here, UTC seconds. Unset: so that `test_fraction` of interactions follow."""
    test_until: int | None = None
    """Temporal only: the test ends before this, UTC seconds. Unset: with the log."""
    validation_fraction: float = 0.1
    """Share of all interactions between the end of training and the split time; user-disjoint: of users."""
    test_fraction: float = 0.1
    """Share of all interactions from the split time on; user-disjoint: of users."""
    train_days: float | None = None
    """Learn only from the last so many days before the end of training. Unset: from everything."""
    request: str | None = None
    """What of the target is known when it is asked for, as a service would know it: "timestamp", and context columns
    that do not depend on what is taken, as in "timestamp,device". Unset: "timestamp" under temporal, nothing under
    the others, as papers do."""
    everything: bool = False
    """Hold out no test: validation takes the last interactions instead, and the final model sees them all."""

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise ConfigError(f"split.protocol is {self.protocol!r}; choose {', '.join(PROTOCOLS)}")
        if self.ties not in (None, "strict", "file"):
            raise ConfigError(f"split.ties is {self.ties!r}; choose strict or file")
        for name in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, name) < 0.5:
                raise ConfigError(f"split.{name} is {getattr(self, name)}; it has to lie between 0 and 0.5")
        if self.test_until is not None and self.split_time is None:
            raise ConfigError("split.test_until needs a split.split_time, where the test begins")
        if self.train_days is not None and self.train_days <= 0:
            raise ConfigError(f"split.train_days is {self.train_days}; it has to be positive")

    @property
    def tie_rule(self) -> Ties:
        """The rule in force."""
        return self.ties or ("strict" if self.protocol == "temporal" else "file")

    @property
    def told(self) -> tuple[str, ...]:
        """What of the target is known when it is asked for: `timestamp` and names of context columns."""
        if self.request is None:
            return ("timestamp",) if self.protocol == "temporal" else ()
        return tuple(name.strip() for name in self.request.split(",") if name.strip())


@dataclass(frozen=True)
class Cases:
    """Questions "what comes next?" and their answers: positions in the dataset's flat arrays, each of shape (n,)."""

    user_index: np.ndarray
    history_start: np.ndarray
    history_end: np.ndarray
    """One past the last interaction of the history, which is never empty."""
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    def sample(self, size: int, seed: int) -> "Cases":
        """Return at most `size` cases chosen at random, in their order."""
        if len(self) <= size:
            return self
        return self.rows(np.sort(np.random.default_rng(seed).choice(len(self), size, replace=False)))

    def rows(self, chosen: np.ndarray) -> "Cases":
        """Return some of the cases."""
        return Cases(*(a[chosen] for a in (self.user_index, self.history_start, self.history_end, self.target)))


@dataclass(frozen=True)
class Segments:
    """The stretch of interactions to learn from of each user index: positions `start` to `end`, shape (users + 1,)."""

    start: np.ndarray
    end: np.ndarray

    @property
    def num_interactions(self) -> int:
        """Interactions in all stretches together."""
        return int((self.end - self.start).sum())

    def positions(self) -> np.ndarray:
        """Return every position inside a stretch, ascending."""
        return expand_ranges(self.start, self.end)

    def blocks(self) -> Iterator["Segments"]:
        """Part the people into blocks of some `INTERACTIONS_AT_ONCE`, so that no array has to be as long as the log."""
        before = np.cumsum(self.end - self.start)
        bounds = np.searchsorted(before, np.arange(INTERACTIONS_AT_ONCE, self.num_interactions, INTERACTIONS_AT_ONCE))
        edges = [0, *np.unique(bounds + 1).tolist(), len(self.start)]
        for begin, end in itertools.pairwise(edges):
            yield Segments(self.start[begin:end], self.end[begin:end])


def stretches_of(dataset: Dataset, chosen_N: np.ndarray) -> Segments:
    """Return the stretch of each person's interactions that some of the log make up.

    Args:
        dataset: The log.
        chosen_N: Which interactions; of each person some that follow each other.
    """
    start, end = dataset.user_offsets[:-1], dataset.user_offsets[1:]
    places = np.flatnonzero(chosen_N)
    before = np.searchsorted(places, start)
    first = np.minimum(np.append(places, len(chosen_N))[before], end)
    return Segments(first, first + np.searchsorted(places, end) - before)


def expand_ranges(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the positions of many stretches, one stretch after the other.

    >>> expand_ranges(np.array([0, 7]), np.array([2, 10]))
    array([0, 1, 7, 8, 9])
    """
    length = end - start
    before = np.cumsum(length) - length
    return np.asarray(np.repeat(start - before, length) + np.arange(int(length.sum())))


@dataclass(frozen=True)
class Split:
    """A dataset parted into what may be learned from and what is asked.

    `train` ends before every validation target; `full` also holds what validation asked, and ends before
    every test target: the final model may learn from it once validation has chosen how long to train.
    """

    train: Segments
    full: Segments
    validation: Cases
    test: Cases
    unusable_users: int
    """Users with a test interaction but no history before it: nothing personal can be said of them."""
    split_time: int | None
    """Temporal only: where the test begins, UTC seconds."""

    def fingerprint(self, dataset: Dataset) -> str:
        """Return a digest of the data, of what may be learned from and of what is asked."""
        digest = hashlib.sha256(dataset.fingerprint.encode())
        for part in (self.train, self.full, self.validation, self.test):
            for positions in part.__dict__.values():
                digest.update(positions.astype("<i8").tobytes())
        return digest.hexdigest()


def split_dataset(dataset: Dataset, config: SplitConfig) -> Split:
    """Part a dataset by the protocol of `config`.

    Raises:
        ConfigError: `split_time` leaves nothing to learn from or nothing to ask.
    """
    protocols = {"temporal": _temporal, "leave-one-out": _leave_one_out, "user-disjoint": _user_disjoint}
    return protocols[config.protocol](dataset, config)


def _temporal(dataset: Dataset, config: SplitConfig) -> Split:
    start, end = dataset.user_offsets[:-1], dataset.user_offsets[1:]
    split_time, validation_time = _split_times(dataset.timestamp, config)
    train_end = _ends_before(dataset, validation_time)
    test_start = _ends_before(dataset, split_time)
    full_end = end if config.everything else test_start
    test_end = end if config.test_until is None else _ends_before(dataset, config.test_until)
    test, unusable = _cases(start, test_start, until=np.maximum(test_start, test_end))
    validation = _asked_often(dataset, start, train_end, full_end)
    return Split(
        train=_recent(dataset, Segments(start, train_end), config, validation_time),
        full=_recent(dataset, Segments(start, full_end), config, split_time),
        validation=validation,
        test=test,
        unusable_users=unusable,
        split_time=split_time,
    )


def _asked_often(dataset: Dataset, start: np.ndarray, since: np.ndarray, until: np.ndarray) -> Cases:
    """Ask, at several times of what lies between two positions of each user, for their first interaction after them.

    A single time asks so few users of a small log that chance would decide when to stop.
    """
    held_out = Segments(since, np.maximum(since, until))
    times = np.sort(np.concatenate([dataset.timestamp[block.positions()] for block in held_out.blocks()]))
    targets = [np.zeros(0, dtype=np.int64)]
    for time in np.unique(times[(np.arange(VALIDATION_TIMES) * len(times)) // VALIDATION_TIMES]) if len(times) else []:
        cases, _ = _cases(start, _ends_before(dataset, int(time)), until)
        targets.append(cases.target)
    target = np.unique(np.concatenate(targets))
    user = np.searchsorted(dataset.user_offsets, target, side="right") - 1
    return Cases(user, start[user], target, target)


def _split_times(timestamp: np.ndarray, config: SplitConfig) -> tuple[int, int]:
    """Return where the test and the validation begin."""
    first, last = int(timestamp.min()), int(timestamp.max())
    if config.everything:
        return last + 1, _quantile(timestamp, 1 - config.validation_fraction)
    if config.split_time is not None:
        if not first < config.split_time <= last:
            raise ConfigError(
                f"split.split_time {config.split_time} is outside the log, which runs from {first} to {last}"
                " (UTC seconds); choose a time between"
            )
        if config.test_until is not None and config.test_until <= config.split_time:
            raise ConfigError(
                f"split.test_until {config.test_until} is not after split.split_time {config.split_time}; the test"
                " would be empty"
            )
        return config.split_time, _quantile(timestamp, 1 - config.validation_fraction, config.split_time)
    split_time = _quantile(timestamp, 1 - config.test_fraction)
    return split_time, _quantile(timestamp, 1 - config.test_fraction - config.validation_fraction)


def _quantile(timestamp: np.ndarray, fraction: float, until: int | None = None) -> int:
    """Return the time before which a share of the interactions (of those before `until`) lie.

    Times are counted in bins, then those of the bin it lies in, which takes no copy of them.
    """
    low, high = int(timestamp.min()), int(timestamp.max()) + 1 if until is None else until
    position = None
    while True:
        width = (high - low - 1) // TIME_BINS + 1
        counts = np.zeros(TIME_BINS, dtype=np.int64)
        for begin in range(0, len(timestamp), INTERACTIONS_AT_ONCE):
            block = timestamp[begin : begin + INTERACTIONS_AT_ONCE]
            inside = block[(block >= low) & (block < high)]
            counts += np.bincount((inside - low) // width, minlength=TIME_BINS)
        ends = np.cumsum(counts)
        if position is None:
            position = min(ends[-1] - 1, round(fraction * ends[-1]))
        there = int(np.searchsorted(ends, position, side="right"))
        if width == 1:
            return low + there
        position -= ends[there] - counts[there]
        low, high = low + there * width, min(high, low + (there + 1) * width)


def _ends_before(dataset: Dataset, time: int) -> np.ndarray:
    """For each user index, return the position of the first interaction at or after `time`."""
    blocks = Segments(dataset.user_offsets[:-1], dataset.user_offsets[1:]).blocks()
    return np.concatenate(
        [_first_since(dataset.timestamp, b.start, b.end, np.full(len(b.start), time)) for b in blocks]
    )


def _first_since(timestamp: np.ndarray, start: np.ndarray, end: np.ndarray, time: np.ndarray) -> np.ndarray:
    """For stretches in which times ascend, return the position of the first interaction at or after a time of each."""
    low, high = start.copy(), end.copy()
    while len(rows := np.flatnonzero(low < high)):
        middle = (low[rows] + high[rows]) // 2
        is_before = timestamp[middle] < time[rows]
        low[rows[is_before]] = middle[is_before] + 1
        high[rows[~is_before]] = middle[~is_before]
    return low


def _leave_one_out(dataset: Dataset, config: SplitConfig) -> Split:
    start, end = dataset.user_offsets[:-1], dataset.user_offsets[1:]
    held_out = 1 if config.everything else 2
    # Somebody with too few interactions to hold out from is learned from and not asked.
    asked = end - start > held_out
    last = np.where(asked, end - 1, end)
    before_last = np.where(asked, end - held_out, end)
    validation, _ = _cases(start, before_last, end, _history_end(dataset, before_last, config))
    test, unusable = _cases(start, last, end, _history_end(dataset, last, config))
    if config.everything:
        test = test.sample(0, seed=0)
    return Split(
        train=_recent(dataset, Segments(start, before_last), config),
        full=_recent(dataset, Segments(start, end if config.everything else before_last), config),
        validation=validation,
        test=test,
        unusable_users=unusable,
        split_time=None,
    )


def _user_disjoint(dataset: Dataset, config: SplitConfig) -> Split:
    start, end = dataset.user_offsets[:-1], dataset.user_offsets[1:]
    # Who is held out depends on the number of users alone, so that every model is asked about the same ones.
    share_U = np.full(len(start), 0.5)  # the padding index is nobody
    share_U[1:] = np.random.default_rng(0).permutation(len(start) - 1) / max(1, len(start) - 1)
    is_test_U = (share_U < config.test_fraction) & (not config.everything)
    is_validation_U = share_U >= 1 - config.validation_fraction
    last_U = np.maximum(end - 1, start)
    history_end = _history_end(dataset, last_U, config)
    test, unusable = _cases(start, np.where(is_test_U, last_U, end), end, history_end)
    validation, _ = _cases(start, np.where(is_validation_U, last_U, end), end, history_end)
    return Split(
        train=_recent(dataset, Segments(start, np.where(is_test_U | is_validation_U, start, end)), config),
        full=_recent(dataset, Segments(start, np.where(is_test_U, start, end)), config),
        validation=validation,
        test=test,
        unusable_users=unusable,
        split_time=None,
    )


def _cases(
    start: np.ndarray, target: np.ndarray, until: np.ndarray, history_end: np.ndarray | None = None
) -> tuple[Cases, int]:
    """Ask each user for the interaction at `target`, where it lies before `until` and some history precedes it.

    Args:
        history_end: Where the history ends. None: at the target.

    Returns:
        The cases, and the number of users who have a target but no history.
    """
    users = np.flatnonzero(target < until)
    ends = (target if history_end is None else history_end)[users]
    usable = ends > start[users]
    users, ends = users[usable], ends[usable]
    return Cases(users, start[users], ends, target[users]), int((~usable).sum())


def _history_end(dataset: Dataset, target: np.ndarray, config: SplitConfig) -> np.ndarray | None:
    """Return where the history of each user's target ends by the rule for ties; None: at the target itself."""
    if config.tie_rule == "file" or dataset.num_interactions == 0:
        return None
    time = dataset.timestamp[np.minimum(target, len(dataset.timestamp) - 1)]
    return _first_since(dataset.timestamp, dataset.user_offsets[:-1], target, time)


def _recent(dataset: Dataset, segments: Segments, config: SplitConfig, until: int | None = None) -> Segments:
    """Leave out what is older than `train_days` before the end of training."""
    if config.train_days is None:
        return segments
    newest = until if until is not None else int(dataset.timestamp.max()) + 1
    since = newest - round(config.train_days * SECONDS_PER_DAY)
    return Segments(np.minimum(np.maximum(segments.start, _ends_before(dataset, since)), segments.end), segments.end)
