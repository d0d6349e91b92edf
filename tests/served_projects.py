"""The real `lodestar serve-api` in a process of its own, in a project of the tests."""

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import COMMAND, _environment
from tests.serving_places import DEADLINE, Served

__all__ = ["SERVED", "served_run", "write_served_config"]

ADDRESS = re.compile(r"answers on (http://\S+)")
# Serving is allowed and there is no feature store: clients send all that the model takes.
SERVED = "environment: {serving: allowed}\n"
STARTS_WITHIN = 120.0


def write_served_config(project: Path, name: str, text: str = SERVED) -> Mapping[str, str]:
    """Add an environment to a project; returns the variables that choose it."""
    (project / "config" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return {"APP_ENV": name}


@contextmanager
def served_run(
    project: Path, run_id: str, *options: str, env: Mapping[str, str]
) -> Iterator[Served]:
    """Serve a run on a free port until the block ends; it must end by itself with exit code 0."""
    with tempfile.NamedTemporaryFile() as errors:
        process = subprocess.Popen(
            [*COMMAND, "serve-api", "--run-id", run_id, "--port", "0", *options],
            cwd=project,
            env=_environment(env),
            stdout=subprocess.DEVNULL,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        server = Served(process, Path(errors.name))
        try:
            server.address = _address(server)
            yield server
            if process.poll() is None:
                code, _ = server.end()
                assert code == 0, server.says()
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(DEADLINE)


def _address(server: Served) -> str:
    ends = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < ends:
        found = ADDRESS.search(server.says())
        if found:
            return found.group(1)
        assert server.process.poll() is None, server.says()
        time.sleep(0.1)
    raise AssertionError(f"not ready within {STARTS_WITHIN:g} s:\n{server.says()}")
