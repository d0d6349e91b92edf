"""Where errors become exit codes, and results become text for people or JSON for programs."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from lodestar.errors import LodestarError, SettingsError

if TYPE_CHECKING:
    from rich.console import Console

    from lodestar.cli.progress import ConsoleProgress

__all__ = ["Out", "View", "described", "escape_control", "guarded"]

INTERRUPTED = 130


class View(Protocol):
    """A result that can be shown both ways."""

    def json(self) -> dict[str, Any]:
        """One JSON object."""
        ...

    def print(self, console: "Console") -> None:
        """Text for people."""
        ...


class Out:
    """Shows results; people's text goes to stderr, so that stdout is for programs."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def show(self, view: View) -> None:
        """Print a result the way that was asked for."""
        if self._as_json:
            self._object(view.json())
        else:
            view.print(self.console())

    def error(self, error: LodestarError) -> None:
        """Print what is wrong and what would be right."""
        sys.stderr.write(f"error: {escape_control(str(error))}\n")
        if self._as_json:
            self._object({"error": described(error)})

    @contextmanager
    def progress(self) -> "Iterator[ConsoleProgress]":
        """Stages and rows on a terminal; only notes where there is none, as in CI."""
        from lodestar.cli.progress import ConsoleProgress

        with ConsoleProgress(self.console()) as progress:
            yield progress

    def console(self) -> "Console":
        """Stderr; without a terminal there are neither colours nor line breaks at 80 columns."""
        from rich.console import Console

        width = None if sys.stderr.isatty() else 120
        return Console(stderr=True, highlight=False, width=width)

    @staticmethod
    def _object(value: dict[str, Any]) -> None:
        import json

        sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


@contextmanager
def guarded(*, as_json: bool) -> Iterator[Out]:
    """Turn our errors into one message and their exit code; a bug keeps its trace and exits 1."""
    out = Out(as_json=as_json)
    try:
        yield out
        sys.stdout.flush()
    except LodestarError as error:
        out.error(error)
        raise SystemExit(error.exit_code) from error
    except KeyboardInterrupt as error:
        sys.stderr.write("interrupted; nothing was saved\n")
        raise SystemExit(INTERRUPTED) from error
    except BrokenPipeError:
        # Whoever read stdout has gone; say nothing more, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def escape_control(text: str) -> str:
    """Make control characters visible, so that data cannot write to the terminal."""
    return "".join(
        char if char == "\n" or char.isprintable() else f"\\x{ord(char):02x}" for char in text
    )


def described(error: LodestarError) -> dict[str, Any]:
    """An error as plain values."""
    problems = error.problems if isinstance(error, SettingsError) else (error,)
    return {
        "kind": type(error).__name__,
        "exit_code": error.exit_code,
        "problems": [
            {"what": item.what, "where": item.where, "hint": item.hint} for item in problems
        ],
    }
