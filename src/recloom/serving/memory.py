"""Giving memory back to the machine."""

import ctypes
import gc
from contextlib import suppress


def release_memory() -> None:
    """Return what a model that has gone left behind: the allocator keeps it, a little more with every model."""
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # another allocator than glibc's has its own ways
        ctypes.CDLL(None).malloc_trim(0)
