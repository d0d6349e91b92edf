"""A real browser without a window."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Chromium", "found_chromium"]

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--window-size=1400,2600",
    "--virtual-time-budget=20000",
    "--dump-dom",
)
WITHIN = 120


@dataclass(frozen=True)
class Chromium:
    """Opens pages with a profile of its own."""

    command: str
    profile: Path

    def __call__(self, address: str, *options: str) -> "subprocess.CompletedProcess[str]":
        """Open a page: its DOM is on stdout, what it logs on stderr. Of options the last one holds."""
        profile = f"--user-data-dir={self.profile}"
        return subprocess.run(
            [self.command, *OPTIONS, profile, *options, address],
            capture_output=True,
            encoding="utf-8",
            timeout=WITHIN,
            check=True,
        )


def found_chromium(profile: Path) -> Chromium:
    """The one on PATH; without it the test fails."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.fail("chromium is not on PATH: install it with `make system-packages`")
    return Chromium(found, profile)
