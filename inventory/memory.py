"""How the C library deals with memory that arrays give back: it keeps some for the next ones."""

import ctypes
import sys
from contextlib import suppress

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 64 * 1024**2
_ARENAS = 2
"""Threads that compute at once are few, and each arena keeps memory of its own."""


def keep_freed_memory() -> None:
    """Lets the process keep what it frees, up to some tens of megabytes; without effect where the library is not glibc.

    By itself glibc gives the end of the heap back to the system at once, and numpy's next array takes it again, page by
    page: a count in a polygon of half a million points on its border spent half of its time with that. Best called
    before there are threads.
    """
    if sys.platform != "linux":
        return
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_ARENA_MAX, _ARENAS)
        # Larger ones are mapped, and unmapped, each by itself.
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES // 2)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
