"""Windows to train on -> batches of similar length, in an order that the seed decides."""

from collections.abc import Iterator

import numpy as np

BATCHES_SORTED_TOGETHER = 50
"""Batches whose windows are sorted by length among themselves: enough that little is padded, few enough that
batches still differ from epoch to epoch."""


def shuffled_batches(length_W: np.ndarray, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the row numbers of each batch; every window is in exactly one of them."""
    order = rng.permutation(len(length_W))
    batches = []
    pool_size = batch_size * BATCHES_SORTED_TOGETHER
    for begin in range(0, len(order), pool_size):
        pool = order[begin : begin + pool_size]
        pool = pool[np.argsort(length_W[pool], kind="stable")]
        batches += [pool[b : b + batch_size] for b in range(0, len(pool), batch_size)]
    for batch in rng.permutation(len(batches)):
        yield batches[batch]
