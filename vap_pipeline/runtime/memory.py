"""How this process keeps its memory."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep() -> None:
    """Keep freed memory for the next tensor, where the C library is glibc; elsewhere do nothing.

    By itself glibc gives every large block back to the system: each step's tensors would be mapped, zeroed
    and freed anew, which is a tenth of a training step of 32 windows. At most the peak stays in use.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)
