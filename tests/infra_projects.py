"""Projects of their own in which tests run `lodestar infra` as users do."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from tests.conftest import COMMAND, ROOT, Finished, ended

from lodestar.infra.account import Account
from lodestar.infra.addresses import AddressFile

__all__ = ["NAMES", "SMALL_SHOP", "InfraCommand", "infra_command", "wait_for"]

NAMES = ("postgres", "redis", "mlflow")
SMALL_SHOP = ("--sessions", "500", "--users", "100", "--products", "20")


class InfraCommand:
    """Runs `lodestar infra …` in a project of its own, as a user does, and knows what it left."""

    def __init__(self, project: Path, account: Account | None = None) -> None:
        self.project = project
        self.home = project / ".lodestar" / "infra"
        self.env_file = project / ".lodestar" / "infra.env"
        self._account = account

    def __call__(self, *args: str) -> Finished:
        """Run to the end."""
        return ended(self.start(*args))

    def start(self, *args: str) -> "subprocess.Popen[str]":
        """Start it and do not wait."""
        return subprocess.Popen(
            [*COMMAND, "infra", *args],
            cwd=self.project,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            **(self._account.of_process() if self._account else {}),
        )

    def up(self) -> Any:  # noqa: ANN401 -- whatever the command printed
        """Start all, with a small shop; what it said."""
        return self("up", *SMALL_SHOP, "--json").succeeded().json

    def is_up(self) -> bool:
        """Whether all three processes are there, without asking the command."""
        running = {process.pid for process in self.processes()}
        records = [self.home / f"{name}.pid" for name in NAMES]
        return all(file.exists() and self.pid(file.stem) in running for file in records)

    def variables(self) -> dict[str, str]:
        """What the env file sets."""
        return AddressFile(self.project).variables()

    def pid(self, name: str) -> int:
        """The process that was recorded for a server."""
        return int(json.loads((self.home / f"{name}.pid").read_text())["pid"])

    def processes(self) -> list[psutil.Process]:
        """All that run in this project's folders."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and Path(process.cwd()).is_relative_to(self.home):
                    found.append(process)
        return found

    def _environment(self) -> dict[str, str]:
        given = {name: value for name, value in os.environ.items() if name != "APP_ENV"}
        given["TMPDIR"] = str(self.project)  # removed with all that a killed command leaves
        # Another user cannot write beside the coverage data of this one.
        other = {name: value for name, value in given.items() if not name.startswith("COVERAGE_")}
        return {**other, "HOME": str(self.project)} if self._account else given


@contextmanager
def infra_command(account: Account | None = None) -> Iterator[InfraCommand]:
    """A new project; whatever runs in it is stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="lodestar-"))
    folder.chmod(0o755)
    config = folder / "config" / "base.yaml"
    config.parent.mkdir()
    shutil.copy(ROOT / "config" / "base.yaml", config)
    if account is not None:
        account.own(folder)
    command = InfraCommand(folder, account)
    try:
        yield command
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            command("down")
        left = command.processes()
        for process in left:
            process.kill()
        shutil.rmtree(folder)
        assert not left, f"still running after down: {left}"


def wait_for(what: Callable[[], bool], *, within: float = 60.0) -> None:
    """Wait until it is so; fail the test if it is not in time."""
    end = time.monotonic() + within
    while not what():
        assert time.monotonic() < end, f"not so within {within:g} s"
        time.sleep(0.02)
