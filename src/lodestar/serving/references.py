"""Which run a reference means, for a process that must not import MLflow: a child process asks it.

What is surely known on this machine (whole run ids and digests of fetched artifacts; everything in a
local store) takes no child.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lodestar import errors
from lodestar.artifact.local_runs import LocalRuns
from lodestar.artifact.register import OpenedRun
from lodestar.errors import ExternalError, LodestarError, Problem, SettingsError
from lodestar.settings.loading import Environment

__all__ = ["Change", "Watcher", "error_of", "in_use", "resolve"]

# -P: nothing that lies in the working directory is imported in place of Lodestar.
_FETCH = (sys.executable, "-P", "-m", "lodestar.serving.fetch")
_KINDS: dict[str, type[LodestarError]] = {
    kind.__name__: kind
    for kind in (
        errors.ArtifactError,
        errors.ExternalError,
        errors.NotAllowedError,
        errors.UnreachableError,
        errors.UsageError,
    )
}
LONGEST_LINE = 1 << 20
DOWNLOAD_WITHIN = 1800.0
ENDS_WITHIN = 5.0


@dataclass(frozen=True)
class Change:
    """What the references mean from now on, or that the server has gone or is back, or what is wrong."""

    runs: tuple[OpenedRun, ...] | None = None
    unreachable: bool | None = None
    error: LodestarError | None = None


def resolve(
    environment: Environment, references: Sequence[str], *, within: float = DOWNLOAD_WITHIN
) -> list[OpenedRun]:
    """The runs that references mean, in order, their artifacts in local folders and verified.

    `within` bounds the child in seconds, downloads included.

    Raises:
        UsageError: a reference means no run, or several.
        ArtifactError: an artifact is incomplete, or not what the run recorded.
        UnreachableError: the tracking server does not answer, and there is no copy here.
    """
    local = LocalRuns(environment.config.mlflow, environment.project)
    known = [local.find(reference) for reference in references]
    found = [run for run in known if run is not None]
    if len(found) == len(references):
        return found
    try:
        done = subprocess.run(  # noqa: S603 -- our own module
            _FETCH,
            input=_request(environment, references),
            stdout=subprocess.PIPE,
            timeout=within,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise ExternalError(
            f"the runs could not be fetched within {within:g} s: {', '.join(references)}"
        ) from error
    change = _change(done.stdout)
    if change is not None and change.error is not None:
        raise change.error
    if change is None or change.runs is None:
        raise ExternalError(
            f"the runs could not be looked up: the child process ended with {done.returncode}",
            hint="what it said stands above",
        )
    return list(change.runs)


@contextmanager
def in_use(environment: Environment, runs: Sequence[OpenedRun]) -> Iterator[None]:
    """Keep the artifacts of runs in the cache as long as this lasts, or the process lives."""
    local = LocalRuns(environment.config.mlflow, environment.project)
    with contextlib.ExitStack() as stack:
        for run in runs:
            stack.enter_context(local.in_use(run))
        yield


class Watcher:
    """Follows references: tells when one means another run, and when the server goes and comes back."""

    def __init__(
        self, environment: Environment, references: Sequence[str], *, seconds: float
    ) -> None:
        self._environment = environment
        self._references = tuple(references)
        self._seconds = seconds

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Every change, from the first answer on; a child that dies is replaced. Close it to end it."""
        last: Change | None = None
        while True:
            child = await self._started()
            try:
                while line := await child.said.readline():
                    change = _change(line)
                    if change is None or (change.runs is not None and change == last):
                        continue
                    last = last if change.runs is None else change
                    yield change
            finally:
                await _ended(child)
            await asyncio.sleep(self._seconds)

    async def _started(self) -> "_Child":
        process = await asyncio.create_subprocess_exec(
            *_FETCH,
            "--watch",
            str(self._seconds),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            start_new_session=True,
        )
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a child was started without its pipes")
        process.stdin.write(_request(self._environment, self._references))
        return _Child(process, process.stdin, process.stdout)


@dataclass(frozen=True)
class _Child:
    process: asyncio.subprocess.Process
    asked: asyncio.StreamWriter
    said: asyncio.StreamReader


async def _ended(child: _Child) -> None:
    """End a child by its stdin; by force where that takes too long."""
    child.asked.close()
    try:
        await asyncio.wait_for(child.process.wait(), ENDS_WITHIN)
    except TimeoutError:
        child.process.kill()
        await child.process.wait()


def _request(environment: Environment, references: Sequence[str]) -> bytes:
    value = {
        "project": str(environment.project),
        "environment": environment.name,
        "references": list(references),
    }
    return json.dumps(value).encode() + b"\n"


def _change(line: bytes) -> Change | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    if "runs" in value:
        return Change(runs=tuple(_run(item) for item in value["runs"]))
    if "unreachable" in value:
        return Change(unreachable=bool(value["unreachable"]))
    return Change(error=error_of(value["error"]))


def _run(value: Mapping[str, Any]) -> OpenedRun:
    return OpenedRun(
        value["run_id"],
        value["run_name"],
        value["digest"],
        Path(value["folder"]),
        tuple(value["notes"]),
    )


def error_of(value: Mapping[str, Any]) -> LodestarError:
    """A child's error as it was before `errors.described`."""
    problems = value["problems"]
    if value["kind"] == SettingsError.__name__:
        return SettingsError(
            [Problem(item["what"], item["where"], item["hint"]) for item in problems]
        )
    first = problems[0]
    kind = _KINDS.get(value["kind"], ExternalError)
    return kind(first["what"], where=first["where"], hint=first["hint"])
