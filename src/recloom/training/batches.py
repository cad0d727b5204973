"""Windows to train on -> batches of similar length, in an order that the seed decides."""

from collections.abc import Iterator

import numpy as np

WINDOWS_SORTED_TOGETHER = 6_400
"""Windows that are sorted by length among themselves: enough that little is padded, few enough that batches
still differ from epoch to epoch."""


def shuffled_batches(length_W: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the row numbers of each batch; every window is in exactly one of them.

    Args:
        length_W: Interactions in each window.
        batch_size: Interactions that a batch holds, about; at least one window.
        rng: Decides the order.
    """
    order = rng.permutation(len(length_W))
    batches = []
    for begin in range(0, len(order), WINDOWS_SORTED_TOGETHER):
        pool = order[begin : begin + WINDOWS_SORTED_TOGETHER]
        pool = pool[np.argsort(length_W[pool], kind="stable")]
        number = (np.cumsum(length_W[pool]) - 1) // batch_size
        batches += np.split(pool, np.flatnonzero(np.diff(number)) + 1)
    for batch in rng.permutation(len(batches)):
        yield batches[batch]
