"""How many threads a worker's libraries may use: all workers together no more than processors."""

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["processors", "thread_limits"]

# Read by OpenMP and BLAS when they are loaded, and by joblib: threads of `n_jobs=-1`, and LightGBM's.
VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def thread_limits(workers: int, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for each of so many workers; those that `environ` says already are left."""
    share = str(max(processors() // workers, 1))
    return {name: share for name in VARIABLES if not environ.get(name)}


def processors(quota: Path = QUOTA) -> int:
    """How many this process may use: those that it may run on, within its container's quota."""
    here = len(os.sched_getaffinity(0))
    try:
        most, period = quota.read_text(encoding="ascii").split()
        return min(here, max(int(most) // int(period), 1))
    except (OSError, ValueError):  # no control group of version 2, or "max"
        return here
