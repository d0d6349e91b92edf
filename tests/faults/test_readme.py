"""The README's way from the laptop to the team, its commands run as they are written there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.conftest import ROOT, Lodestar
from tests.swapping import eventually

from lodestar.infra.endpoint import HOST, Endpoint

pytestmark = [pytest.mark.slow, pytest.mark.faults, pytest.mark.timeout(600)]
SECTION = "## From the laptop to the team"
RUN, PORT = "93fb8c37", "8000"


def commands(section: str) -> list[str]:
    """What a section tells to type, lines that end with a backslash joined."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, found, rest = text.partition(f"{section}\n")
    assert found, section
    blocks = re.findall(r"```\n(.*?)```", rest.partition("\n## ")[0], re.DOTALL)
    typed = re.findall(r"^\$ ((?:.*\\\n)*.*)$", "\n".join(blocks), re.MULTILINE)
    return [one.replace("\\\n", " ") for one in typed]


class Shell:
    """Types commands in a project, one process each; `export` holds for those that follow."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._variables = {**os.environ, "PATH": path}
        self._port = str(Endpoint.fresh().port)
        self._run = ""
        self.server: subprocess.Popen[bytes] | None = None

    def type(self, command: str) -> str:
        """Run it; what it said on both streams."""
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self._variables[name] = value
            return ""
        line = command.replace(PORT, self._port).replace(RUN, self._run)
        if line.startswith("lodestar serve-api"):
            self._serve(f"exec {line} --port {self._port}")
            return ""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self._folder,
            env=self._variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}"
        found = re.search(r"^run +([0-9a-f]{32})", done.stdout, re.MULTILINE)
        if found:
            self._run = found.group(1)[:8]
        return done.stdout

    def _serve(self, line: str) -> None:
        self.server = subprocess.Popen(["bash", "-c", line], cwd=self._folder, env=self._variables)
        server = self.server

        def is_ready() -> bool:
            assert server.poll() is None, "it has ended"
            try:
                return httpx.get(f"http://{HOST}:{self._port}/health/ready").is_success
            except httpx.HTTPError:  # it starts
                return False

        eventually(is_ready)


@pytest.fixture
def shell(lodestar: Lodestar, enterable_folder: Path) -> Iterator[Shell]:
    lodestar("init", "shop", cwd=enterable_folder).succeeded()
    shell = Shell(enterable_folder / "shop")
    try:
        yield shell
    finally:
        if shell.server is not None:
            shell.server.terminate()
            shell.server.wait(30)
        shell.type("lodestar infra down")


def test_every_command_does_what_the_readme_says(shell: Shell) -> None:
    typed = commands(SECTION)
    assert len(typed) > 8
    said = [shell.type(command) for command in typed]
    parities = [text for text, command in zip(said, typed, strict=True) if "parity" in command]
    assert ["bit by bit the same" in text for text in parities] == [True, True]
    (answer,) = (text for text, command in zip(said, typed, strict=True) if "curl" in command)
    assert '"uplift"' in answer
    assert '"degraded"' not in answer
