"""How many examples property tests draw: a third where every change is checked, all in `make faults`."""

import os

__all__ = ["examples"]


def examples(count: int) -> int:
    """So many with THOROUGH set, else a third."""
    return count if os.environ.get("THOROUGH") else max(count // 3, 1)
