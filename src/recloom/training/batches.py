"""Windows to train on -> batches of similar length, in an order that the seed decides."""

from collections.abc import Iterator

import numpy as np

WINDOWS_SORTED_TOGETHER = 6_400
"""Windows that are sorted by length among themselves: enough that little is padded, few enough that batches
still differ from epoch to epoch."""
WINDOWS_SHUFFLED_TOGETHER = 2**18
"""Of a log with more windows so many are shuffled at a time, so that one which does not fit into memory is read from
the disk once an epoch, and not a page for each window."""
NEIGHBOURS = 2**10
"""They are stretches of so many windows that lie beside each other, from all over the log."""


def shuffled_batches(length_W: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the row numbers of each batch; every window is in exactly one of them.

    Args:
        length_W: Interactions in each window.
        batch_size: Interactions that a batch holds, about; at least one window.
        rng: Decides the order.
    """
    for order in _shuffled(len(length_W), rng):
        batches = []
        for begin in range(0, len(order), WINDOWS_SORTED_TOGETHER):
            pool = order[begin : begin + WINDOWS_SORTED_TOGETHER]
            pool = pool[np.argsort(length_W[pool], kind="stable")]
            number = (np.cumsum(length_W[pool]) - 1) // batch_size
            batches += np.split(pool, np.flatnonzero(np.diff(number)) + 1)
        for batch in rng.permutation(len(batches)):
            yield batches[batch]


def _shuffled(num_windows: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    if num_windows <= WINDOWS_SHUFFLED_TOGETHER:
        yield rng.permutation(num_windows)
        return
    stretches = rng.permutation(np.arange(0, num_windows, NEIGHBOURS))
    for chosen in np.array_split(stretches, -(-num_windows // WINDOWS_SHUFFLED_TOGETHER)):
        rows = (chosen[:, None] + np.arange(NEIGHBOURS)).ravel()
        yield rng.permutation(rows[rows < num_windows])
