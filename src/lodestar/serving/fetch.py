"""`python -m lodestar.serving.fetch`: looks runs up and fetches artifacts for a server without MLflow.

It is given `{"project": path, "environment": name or null, "references": ["champion", "a1b2…"]}` on one
line of stdin, and prints `{"runs": [{"reference", "run_id", "run_name", "digest", "folder", "notes"}]}`
on one line, or `{"error": {"kind", "exit_code", "problems"}}` and exits with that code.

`--watch SECONDS` goes on: whenever a reference means another run, all are printed again, with the
artifact fetched and verified; `{"unreachable": true}` and `false` when the tracking server goes and
comes back; an error, once, when the references mean nothing any more. It ends with its stdin.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

from lodestar.artifact.register import OpenedRun
from lodestar.artifact.store import RunStore
from lodestar.errors import ExternalError, LodestarError, UsageError, described
from lodestar.serving.references import resolve
from lodestar.settings.loading import Environment, load_config

__all__ = ["main"]

Say = Callable[[dict[str, Any]], None]


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m lodestar.serving.fetch")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="go on looking")
    options = parser.parse_args()
    with _stdout_alone() as stdout:

        def say(value: dict[str, Any]) -> None:
            stdout.write(json.dumps(value) + "\n")
            stdout.flush()

        try:
            asked = _Asked.read(sys.stdin)
            if options.watch is not None:
                _end_with_stdin()
                _Watch(asked, say).go_on(every=options.watch)
            say(_runs_line(asked.references, [asked.store.located(r) for r in asked.references]))
        except LodestarError as error:
            say({"error": described(error)})
            return error.exit_code
        except (KeyboardInterrupt, BrokenPipeError):
            pass  # whoever asked has gone
        return 0


@dataclass(frozen=True)
class _Asked:
    """One request."""

    environment: Environment
    store: RunStore
    references: tuple[str, ...]

    @classmethod
    def read(cls, stdin: TextIO) -> "_Asked":
        try:
            value = json.loads(stdin.readline())
            project, name = Path(value["project"]), value["environment"]
            references = tuple(str(reference) for reference in value["references"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                'stdin has to begin with {"project": path, "environment": name, "references": [text]}'
            ) from error
        environment = load_config(project, name, variables=os.environ)
        store = RunStore(environment.config.mlflow, project, environment.name)
        return cls(environment, store, references)


class _Watch:
    """Looks again and again, and says what has changed since it last said something."""

    def __init__(self, asked: _Asked, say: Say) -> None:
        self._asked = asked
        self._say = say
        self._known: list[str] | None = None
        self._unreachable = False
        self._error: dict[str, Any] | None = None

    def go_on(self, *, every: float) -> NoReturn:
        """For ever; the process ends with its stdin."""
        while True:
            self._look()
            time.sleep(every)

    def _look(self) -> None:
        error = None
        try:
            meant = [self._asked.store.meant(item) for item in self._asked.references]
            if meant != self._known:
                # What has to be fetched is fetched by a child: this process lives long, without MLflow.
                self._tell(resolve(self._asked.environment, meant))
            self._reach(unreachable=False)
        except ExternalError:
            if self._known is None:
                self._tell_last_known()
            self._reach(unreachable=True)
        except LodestarError as wrong:
            error = described(wrong)
            if error != self._error:
                self._say({"error": error})
        self._error = error

    def _tell_last_known(self) -> None:
        found = [self._asked.store.last_known(item) for item in self._asked.references]
        runs = [run for run in found if run is not None]
        if len(runs) == len(found):
            self._tell(runs)

    def _tell(self, runs: Sequence[OpenedRun]) -> None:
        self._say(_runs_line(self._asked.references, runs))
        self._known = [run.run_id for run in runs]

    def _reach(self, *, unreachable: bool) -> None:
        if unreachable != self._unreachable:
            self._unreachable = unreachable
            self._say({"unreachable": unreachable})


def _runs_line(references: Sequence[str], runs: Sequence[OpenedRun]) -> dict[str, Any]:
    return {
        "runs": [
            {
                "reference": reference,
                "run_id": run.run_id,
                "run_name": run.run_name,
                "digest": run.digest,
                "folder": str(run.folder),
                "notes": list(run.notes),
            }
            for reference, run in zip(references, runs, strict=True)
        ]
    }


def _end_with_stdin() -> None:
    """Whoever asked closes stdin, or has died; whatever is under way is left to be tidied up later."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _stdout_alone() -> Iterator[TextIO]:
    """Stdout for our lines alone: what libraries print goes to stderr."""
    kept = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(kept, "w", encoding="utf-8") as stdout:
        yield stdout


if __name__ == "__main__":
    sys.exit(main())
