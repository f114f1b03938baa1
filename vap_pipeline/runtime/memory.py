"""Keep freed memory in the process."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep() -> None:
    """Keep freed memory for the next tensor. Does nothing if the C library is not glibc.

    By default glibc returns every large block to the system, so the tensors of each step are mapped and
    zeroed again: a tenth of a training step of 32 windows. The process keeps the memory of its peak.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)
