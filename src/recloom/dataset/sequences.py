"""Positions in the flat arrays -> padded batches of histories, without a Python object per row."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from recloom.dataset.columns import CategoryColumn, ContextColumn, unknown_value
from recloom.dataset.dataset import Dataset
from recloom.dataset.splits import Segments, expand_ranges
from recloom.dataset.vocabulary import PADDING_INDEX
from recloom.errors import ConfigError


@dataclass(frozen=True)
class Requests:
    """When and where each history's next item is asked for."""

    timestamp_B: np.ndarray
    """UTC seconds, int64; 0 where unknown."""
    context_B: dict[str, np.ndarray]
    """Values of each context column, coded as in `Histories`; 0 for an unknown word, NaN for an unknown number."""

    def rows(self, chosen_B: np.ndarray) -> "Requests":
        """Return some of the requests."""
        return Requests(self.timestamp_B[chosen_B], {n: values_B[chosen_B] for n, values_B in self.context_B.items()})

    @classmethod
    def unknown(cls, dataset: Dataset, size: int) -> "Requests":
        """Return requests of which nothing is known."""
        context = {
            name: np.full(size, unknown_value(column.values.dtype), column.values.dtype)
            for name, column in dataset.context.items()
        }
        return cls(np.zeros(size, dtype=np.int64), context)


@dataclass(frozen=True)
class Histories:
    """A batch of histories, oldest interaction first, padded at the end.

    B is the batch, L the longest history in it. Padding holds `PADDING_INDEX`, and time 0.
    """

    item_index_BL: np.ndarray
    timestamp_BL: np.ndarray
    behavior_index_BL: np.ndarray
    context_BL: dict[str, np.ndarray]
    """Values of each context column: indices of words, or numbers."""
    length_B: np.ndarray
    user_index_B: np.ndarray
    """Who it is; `PADDING_INDEX` for somebody the dataset does not know."""
    request: Requests
    """When and where the item after the last one is asked for."""
    all_items: np.ndarray
    """Items of whole histories, one after the other; the batch above holds the newest of each."""
    start_B: np.ndarray
    """Where each history begins in `all_items`."""
    end_B: np.ndarray
    """One past where it ends."""

    def __len__(self) -> int:
        return len(self.length_B)

    def rows(self, chosen_B: np.ndarray) -> "Histories":
        """Return some of the histories, no longer padded than they need."""
        length_B = self.length_B[chosen_B]
        longest = int(length_B.max(initial=0))

        def take(values_BL: np.ndarray) -> np.ndarray:
            return values_BL[chosen_B, :longest]

        return Histories(
            take(self.item_index_BL),
            take(self.timestamp_BL),
            take(self.behavior_index_BL),
            {name: take(values_BL) for name, values_BL in self.context_BL.items()},
            length_B,
            self.user_index_B[chosen_B],
            self.request.rows(chosen_B),
            self.all_items,
            self.start_B[chosen_B],
            self.end_B[chosen_B],
        )

    def newest(self, row: int, most: int) -> np.ndarray:
        """Return the newest items of one history, oldest first."""
        length = int(self.length_B[row])
        return self.item_index_BL[row, max(0, length - most) : length]

    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the row and the item of every interaction of the whole histories."""
        rows = np.repeat(np.arange(len(self)), self.end_B - self.start_B)
        return rows, self.all_items[expand_ranges(self.start_B, self.end_B)]


@dataclass(frozen=True)
class Interaction:
    """One interaction of a history given by the caller, who may leave out all but the item."""

    item_id: str
    timestamp: int = 0
    behavior: str = ""
    context: Mapping[str, str | float] = field(default_factory=dict)


def windows(segments: Segments, length: int, stride: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Cut long stretches into windows to train on.

    A window holds at most `length` + 1 interactions: every one but the last is input, every one but the first
    is a target. Windows are laid from the newest interaction backwards, so that it is always the last
    target of a full window; a rest of one interaction, which has no target, is left out.

    Args:
        segments: A stretch of positions for each user.
        length: Inputs in a full window.
        stride: Interactions between the ends of neighbouring windows. Unset: `length`, so that each
            interaction is a target once; smaller values repeat targets with more history before them.

    Returns:
        Start and end positions, each of shape (windows,).
    """
    stride = stride or length
    span = np.maximum(segments.end - segments.start - 1, 0)  # targets of each user
    # Another window is wanted while targets are left that no window has reached.
    count = np.where(span > 0, 1 + np.maximum(0, -(-(span - length) // stride)), 0)
    end = np.repeat(segments.end, count)
    rank = np.arange(len(end)) - np.repeat(np.cumsum(count) - count, count)
    end = end - rank * stride
    start = np.maximum(end - length - 1, np.repeat(segments.start, count))
    return start, end


def neighbouring_pairs(dataset: Dataset, segments: Segments, reach: int) -> Iterator[np.ndarray]:
    """Yield the items of every two interactions of a user that are near each other and with different items.

    Args:
        dataset: Where the interactions are.
        segments: A stretch of positions for each user.
        reach: Most interactions apart.

    Yields:
        For 1, 2, ... interactions apart, item indices, the earlier first, int64 of shape (pairs, 2).
    """
    positions = segments.positions()
    user = np.searchsorted(dataset.user_offsets, positions, side="right")
    item = dataset.item_index[positions].astype(np.int64)
    for distance in range(1, reach + 1):
        together = (user[distance:] == user[:-distance]) & (item[distance:] != item[:-distance])
        yield np.stack([item[:-distance][together], item[distance:][together]], axis=1)


def gather(
    dataset: Dataset,
    start_B: np.ndarray,
    end_B: np.ndarray,
    max_length: int,
    request_B: np.ndarray | None = None,
    told: Collection[str] = (),
) -> Histories:
    """Read stretches of interactions as a batch, each cut to its last `max_length`.

    Args:
        dataset: Where the interactions are.
        start_B: Position of the first interaction of each history.
        end_B: One past its last.
        max_length: Most interactions of a history to read.
        request_B: Position of the interaction that is asked for. None: nothing is known of the request.
        told: What becomes known of it: `timestamp` and names of context columns.
    """
    first_B = np.maximum(start_B, end_B - max_length)
    length_B = end_B - first_B
    longest = int(length_B.max(initial=0))
    steps_L = np.arange(longest)
    inside_BL = steps_L < length_B[:, None]
    position_BL = np.where(inside_BL, first_B[:, None] + steps_L, 0)

    def take(flat: np.ndarray) -> np.ndarray:
        return np.where(inside_BL, flat[position_BL], flat.dtype.type(0))

    request = Requests.unknown(dataset, len(length_B))
    if request_B is not None:
        time_B = dataset.timestamp[request_B] if "timestamp" in told else request.timestamp_B
        context = {name: dataset.context[name].values[request_B] for name in dataset.context if name in told}
        request = Requests(time_B, request.context_B | context)
    return Histories(
        take(dataset.item_index),
        take(dataset.timestamp),
        take(dataset.behavior.values),
        {name: take(column.values) for name, column in dataset.context.items()},
        length_B,
        np.searchsorted(dataset.user_offsets, start_B, side="right") - 1,
        request,
        dataset.item_index,
        start_B,
        end_B,
    )


def histories_from_interactions(
    dataset: Dataset, histories: Sequence[Sequence[Interaction]], max_length: int
) -> tuple[Histories, np.ndarray]:
    """Number interactions that the caller spelled out; items the dataset does not know are left out.

    A behaviour left out is taken for the dataset's most frequent one; a time left out for the time of the
    interaction before, so that it adds no gap.

    Returns:
        The batch, and for each history how many items were unknown, shape (B,).
    """
    usual_behavior = int(np.bincount(dataset.behavior.values, minlength=2).argmax())
    known_items = [[i for i in history if i.item_id in dataset.items] for history in histories]
    known = [history[-max_length:] for history in known_items]
    unknown_B = np.array([sum(i.item_id not in dataset.items for i in history) for history in histories], dtype=int)
    length_B = np.array([len(history) for history in known], dtype=np.int64)
    shape = (len(known), int(length_B.max(initial=0)))
    item_index_BL, behavior_index_BL = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    timestamp_BL = np.zeros(shape, np.int64)
    context_BL = {name: np.zeros(shape, column.values.dtype) for name, column in dataset.context.items()}
    for row, history in enumerate(known):
        length = len(history)
        item_index_BL[row, :length] = dataset.items.indices_of(i.item_id for i in history)
        timestamp_BL[row, :length] = np.maximum.accumulate([i.timestamp for i in history] or [0])[:length]
        spelled = [dataset.behavior.vocabulary.index_of(i.behavior) if i.behavior else usual_behavior for i in history]
        behavior_index_BL[row, :length] = spelled
        for name, column in dataset.context.items():
            context_BL[name][row, :length] = [context_value(column, i.context.get(name)) for i in history]
    end_B = np.cumsum([len(history) for history in known_items])
    batch = Histories(
        item_index_BL,
        timestamp_BL,
        behavior_index_BL,
        context_BL,
        length_B,
        user_index_B=np.full(len(known), PADDING_INDEX),
        request=Requests.unknown(dataset, len(known)),
        all_items=dataset.items.indices_of(i.item_id for history in known_items for i in history),
        start_B=np.concatenate([[0], end_B[:-1]]).astype(np.int64),
        end_B=end_B.astype(np.int64),
    )
    return batch, unknown_B


def context_value(column: ContextColumn, value: str | float | None) -> float:
    """Return the code of a word, or the number; what stands for "not known" where there is none.

    Raises:
        ConfigError: The column holds numbers and the value is none.
    """
    if value is None:
        return unknown_value(column.values.dtype)
    if isinstance(column, CategoryColumn):
        return column.vocabulary.index_of(str(value))
    try:
        return float(value)
    except ValueError:
        raise ConfigError(
            f"the context value {value!r} is no number, and its column in the log holds numbers"
        ) from None
