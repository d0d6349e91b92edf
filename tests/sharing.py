"""Which test process runs which file: files that share what is slow to start are run by the same."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

__all__ = ["pytest_xdist_make_scheduler"]

ROOT = Path(__file__).resolve().parents[1]
# Fixtures of the session that take many seconds, the slowest first.
SLOW: Sequence[str] = ("dev_project", "mlflow_server", "scoring_template")


class TogetherScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """As `--dist loadfile`, and files with one of these fixtures are as one file."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(super()._split_scope(nodeid))


@cache
def _group(file: str) -> str:
    text = (ROOT / file).read_text(encoding="utf-8")
    return next((name for name in SLOW if name in text), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TogetherScheduling:  # noqa: ANN401 -- xdist's own
    """For `-n`."""
    return TogetherScheduling(config, log)
