"""Keeping what a service holds in memory from standing in the way of its answers."""

import ctypes
import gc
from contextlib import suppress


def settle_memory() -> None:
    """After models have come or gone: give back what is free, and take what is left for what stays.

    The allocator keeps what a model that has gone left behind, a little more with every model. And looking through a
    model for garbage again and again would stop every answer for longer than it takes; it has no cycles, so that
    it goes when nobody refers to it.
    """
    gc.collect()
    gc.freeze()
    with suppress(AttributeError, OSError, TypeError):  # another allocator than glibc's has its own ways
        ctypes.CDLL(None).malloc_trim(0)
