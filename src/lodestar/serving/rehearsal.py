"""`python -m lodestar.serving.rehearsal`: loads a run as the server would, in a process of its own.

Proving that rows are scored as the artifact does takes seconds of the processor, and whatever a bad
artifact does while it is loaded, it does not do to a server that answers others. The server then only
repeats the scoring's choice.

The child is given `{"project": path, "environment": name, "run": {…}}` on stdin, and prints one line:
`{"scoring": name, "why_not_faster": text, "notes": [text]}`, or `{"error": {"kind", "exit_code",
"problems"}}`.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from lodestar.errors import ArtifactError, ExternalError, LodestarError, described
from lodestar.serving.references import error_of
from lodestar.serving.state import ServedRun
from lodestar.serving.telemetry import SHARED_FOLDER, Telemetry
from lodestar.settings.loading import Environment, load_config

__all__ = ["Rehearsed", "main", "rehearse"]

# -P: nothing that lies in the working directory is imported in place of Lodestar.
CHILD = (sys.executable, "-P", "-m", "lodestar.serving.rehearsal")
WITHIN = 600.0
# Others go first, where there is one processor for all; it still gets a quarter of it.
NICE = 5
SIGNALLED = "the artifact was given up: the process that tried it ended with {code}"


@dataclass(frozen=True)
class Rehearsed:
    """A run that can be served, how its rows are scored, and what to know about it, in words."""

    run: ServedRun
    notes: tuple[str, ...]


async def rehearse(environment: Environment, run: ServedRun) -> Rehearsed:
    """Let a child process verify, load and prove a run.

    Raises:
        LodestarError: whatever the run was refused for.
        ExternalError: it took too long.
    """
    asked = {
        "project": str(environment.project),
        "environment": environment.name,
        "run": msgspec.to_builtins(run),
    }
    child = await asyncio.create_subprocess_exec(
        *CHILD,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=_environment(),
        start_new_session=True,
    )
    try:
        said, _ = await asyncio.wait_for(child.communicate(json.dumps(asked).encode()), WITHIN)
    except TimeoutError as error:
        raise ExternalError(f"loading the artifact takes longer than {WITHIN:g} s") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    value = _last_line(said)
    if value is None:
        raise ArtifactError(SIGNALLED.format(code=child.returncode))
    if "error" in value:
        raise error_of(value["error"])
    proven = msgspec.structs.replace(
        run, scoring=value["scoring"], why_not_faster=value["why_not_faster"]
    )
    return Rehearsed(proven, tuple(value["notes"]))


def main() -> int:
    """Be the child; returns the exit code."""
    os.nice(NICE)
    value = json.load(sys.stdin)
    try:
        said = _tried(value)
    except LodestarError as error:
        said = {"error": described(error)}
    sys.stdout.write(f"\n{json.dumps(said)}\n")
    return 0


def _tried(value: Mapping[str, Any]) -> dict[str, Any]:
    from pathlib import Path

    from lodestar.factory.environment import EnvironmentFactory
    from lodestar.serving.loading import VersionLoader

    environment = load_config(Path(value["project"]), value["environment"], variables=os.environ)
    factory, settings = EnvironmentFactory(environment), environment.config.serving
    loader = VersionLoader(factory, settings, Telemetry(), environment.project)
    version, notes = loader.load(msgspec.convert(value["run"], ServedRun))
    return {
        "scoring": version.scorer.name,
        "why_not_faster": version.scorer.reason,
        "notes": list(notes),
    }


def _environment() -> dict[str, str]:
    """One thread is enough; and what the child counts is not the server's."""
    kept = {name: value for name, value in os.environ.items() if name != SHARED_FOLDER}
    return {**kept, "OMP_NUM_THREADS": "1"}


def _last_line(said: bytes) -> dict[str, Any] | None:
    """The answer; libraries may have printed before it."""
    lines = said.decode(errors="replace").strip().splitlines()
    try:
        value = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


if __name__ == "__main__":
    sys.exit(main())
