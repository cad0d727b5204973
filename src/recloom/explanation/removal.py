"""One history, with some of its interactions or of its request taken away, as a batch to be scored at once.

Shapes: V variants of one history, L its steps.
"""

from dataclasses import replace

import numpy as np

from recloom.dataset import Histories, unknown_value

TIME = "time"
"""What the request's timestamp is called among the parts of a request."""


def variants(history: Histories, kept_VL: np.ndarray, max_length: int) -> Histories:
    """Return one history several times, each time with other interactions left.

    What a model would be asked if the rest had never happened: a model that reads the newest 50 interactions reads
    the 51st when one of them is gone, so `history` has to hold more steps than that.

    Args:
        history: A single one, unpadded: with one step more than the model reads, where there are so many.
        kept_VL: Which steps are left in each variant, at least one.
        max_length: Most interactions that the model reads.
    """
    num_variants, longest = len(kept_VL), int(history.length_B[0])
    whole = history.all_items[history.start_B[0] : history.end_B[0]]
    older, newer = whole[: len(whole) - longest], whole[len(whole) - longest :]
    length_V = np.minimum(kept_VL.sum(axis=1), max_length)
    shape = (num_variants, int(length_V.max(initial=0)))
    step_VL, inside_VL = np.zeros(shape, np.int64), np.zeros(shape, bool)
    for row, length in enumerate(length_V.tolist()):
        step_VL[row, :length] = np.flatnonzero(kept_VL[row])[-length:]
        inside_VL[row, :length] = True

    def take(values_1L: np.ndarray) -> np.ndarray:
        return np.where(inside_VL, values_1L[0][step_VL], values_1L.dtype.type(0))

    wholes = [np.concatenate([older, newer[kept_L]]) for kept_L in kept_VL]
    end_V = np.cumsum([len(items) for items in wholes])
    same = np.zeros(num_variants, dtype=np.int64)
    return Histories(
        take(history.item_index_BL),
        take(history.timestamp_BL),
        take(history.behavior_index_BL),
        {name: take(values_BL) for name, values_BL in history.context_BL.items()},
        length_V.astype(np.int64),
        history.user_index_B[same],
        history.request.rows(same),
        np.concatenate(wholes),
        np.concatenate([[0], end_V[:-1]]).astype(np.int64),
        end_V.astype(np.int64),
    )


def alike(asked: Histories) -> list[tuple[np.ndarray, int]]:
    """Part variants of one history into stretches that begin alike, in order.

    A window that is full reaches one step further back when a step is gone, so it begins elsewhere.

    Returns:
        The rows of each stretch, and how many steps at the beginning they share, fewer than the shortest has.
    """
    columns = [asked.item_index_BL, asked.timestamp_BL, asked.behavior_index_BL, *asked.context_BL.values()]
    begins_V = np.zeros(len(asked), dtype=bool)
    for values_VL in columns:
        begins_V[1:] |= ~_equal(values_VL[1:, 0], values_VL[:-1, 0])
    found = []
    for rows in np.split(np.arange(len(asked)), np.flatnonzero(begins_V)):
        same_L = np.ones(columns[0].shape[1], dtype=bool)
        for values_VL in columns:
            same_L &= _equal(values_VL[rows], values_VL[rows[0]]).all(axis=0)
        shared = len(same_L) if same_L.all() else int(np.argmin(same_L))
        found.append((rows, min(shared, int(asked.length_B[rows].min()) - 1)))
    return found


def _equal(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where values are the same, or both unknown numbers."""
    return (one == other) | ((one != one) & (other != other))


def known_of_request(history: Histories) -> list[str]:
    """Return what is known of the request of a single history: `TIME`, and names of context columns."""
    request = history.request
    known = [TIME] if request.timestamp_B[0] > 0 else []
    for name, value_B in request.context_B.items():
        is_unknown = np.isnan(value_B[0]) if value_B.dtype.kind == "f" else value_B[0] == 0
        known += [] if is_unknown else [name]
    return known


def without_request_part(histories: Histories, row: int, name: str) -> Histories:
    """Return histories of which one is asked for as if a part of its request were not known."""
    timestamp_B = histories.request.timestamp_B.copy()
    context = {column: value_B.copy() for column, value_B in histories.request.context_B.items()}
    if name == TIME:
        timestamp_B[row] = 0
    else:
        context[name][row] = unknown_value(context[name].dtype)
    return replace(histories, request=replace(histories.request, timestamp_B=timestamp_B, context_B=context))
