"""How many threads each of several workers may use."""

import os
from pathlib import Path

import pytest

from lodestar.serving.threads import VARIABLES, processors, thread_limits

HERE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("quota", "found"),
    [
        ("max 100000\n", HERE),
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("99900000 100000\n", HERE),
        ("nonsense", HERE),
    ],
)
def test_a_containers_quota_counts_as_so_many_processors(
    tmp_path: Path, quota: str, found: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert processors(tmp_path / "cpu.max") == found


def test_without_a_quota_the_processors_that_it_may_run_on_count(tmp_path: Path) -> None:
    assert processors(tmp_path / "none") == HERE


def test_workers_share_the_processors_and_each_has_one() -> None:
    assert set(thread_limits(processors(), {}).values()) == {"1"}
    assert set(thread_limits(1, {}).values()) == {str(processors())}
    assert set(thread_limits(1_000, {}).values()) == {"1"}


def test_what_the_user_has_set_is_left() -> None:
    limits = thread_limits(2, {"OMP_NUM_THREADS": "7", "MKL_NUM_THREADS": ""})
    assert set(limits) == set(VARIABLES) - {"OMP_NUM_THREADS"}
