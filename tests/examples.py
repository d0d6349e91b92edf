"""Which examples tests draw: a third of them, always the same, where every change is checked.

`make faults` draws all of them, and other ones each time.
"""

import os

from hypothesis import HealthCheck, settings

__all__ = ["examples", "without_chance"]

THOROUGH = bool(os.environ.get("THOROUGH"))


def examples(count: int) -> int:
    """So many with THOROUGH set, else a third."""
    return count if THOROUGH else max(count // 3, 1)


def without_chance() -> None:
    """No test of Hypothesis fails for how busy the machine is; only with THOROUGH for what is drawn."""
    settings.register_profile(
        "lodestar",
        deadline=None,
        derandomize=not THOROUGH,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("lodestar")
