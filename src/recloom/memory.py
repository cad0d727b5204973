"""How a process holds no more memory than it uses."""

import ctypes
import os

_MMAP_THRESHOLD = -3
"""`M_MMAP_THRESHOLD` of glibc's malloc.h."""
LARGE_BLOCK_BYTES = 2**20
KEPT_SHAPES = "32"
"""Shapes of products whose code oneDNN keeps, of the 1,024 it keeps by itself: texts come in as many lengths."""


def spare_memory() -> None:
    """Give back what is freed, and keep little for later; to be called before torch computes anything.

    glibc raises what it calls a large block to 32 MB once a program has freed such a block, and does not return what is
    smaller: here every block of a megabyte goes back to the system when it is freed. Where the system is not glibc,
    nothing changes. It costs a little time.
    """
    # Of oneDNN, and of what torch puts before it.
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, KEPT_SHAPES)
    try:
        ctypes.CDLL("libc.so.6").mallopt(_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
    except (OSError, AttributeError):
        return
