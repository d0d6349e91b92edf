"""The C library's own functions, which boosters call too: others round some values differently."""

import ctypes

from lodestar.core.trees.forest import NotPlannedError

__all__ = ["math_function"]


def math_function(name: str) -> int:
    """The address of `expf` and the like in this process.

    Raises:
        NotPlannedError: there is none by that name.
    """
    try:
        found = ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError) as error:
        raise NotPlannedError(f"the C library's {name} was not found") from error
    if not found:
        raise NotPlannedError(f"the C library's {name} was not found")
    return found
