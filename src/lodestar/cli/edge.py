"""Where errors become exit codes, and results become text for people or JSON for programs."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from lodestar.cli.escaping import escape_control
from lodestar.errors import LodestarError, described

if TYPE_CHECKING:
    from rich.console import Console

    from lodestar.cli.progress import ConsoleProgress

__all__ = ["WORSE", "Out", "View", "described", "guarded"]

INTERRUPTED = 130
# What was asked for is done, and its answer is the bad news that an option asked to fail on.
WORSE = 7


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

    def __init__(self, *, as_json: bool, stdout: TextIO) -> None:
        self.as_json = as_json
        self._stdout = stdout

    def show(self, view: View) -> None:
        """Print a result the way that was asked for."""
        if self.as_json:
            self._object(view.json())
        else:
            view.print(self.console())

    def error(self, error: LodestarError) -> None:
        """Print what is wrong and what would be right."""
        from rich.text import Text

        from lodestar.cli.drawing import styled

        words = styled("error: ", "bold red") + Text(escape_control(str(error)))
        self.console().print(words, soft_wrap=True)
        if self.as_json:
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

    def _object(self, value: dict[str, Any]) -> None:
        import json

        self._stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
        self._stdout.flush()


@contextmanager
def guarded(*, as_json: bool) -> Iterator[Out]:
    """Turn our errors into one message and their exit code; a bug keeps its trace and exits 1."""
    try:
        with _interruption() as interrupted, _stdout_kept_clean(wanted=as_json) as stdout:
            out = Out(as_json=as_json, stdout=stdout)
            try:
                yield out
                stdout.flush()
            except LodestarError as error:
                if interrupted():
                    raise KeyboardInterrupt from error
                out.error(error)
                raise
    except LodestarError as error:
        raise SystemExit(error.exit_code) from error
    except KeyboardInterrupt as error:
        sys.stderr.write(f"interrupted; {str(error) or 'nothing was saved'}\n")
        raise SystemExit(INTERRUPTED) from error
    except BrokenPipeError:
        # Whoever read stdout has gone; say nothing more, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


@contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Remember Ctrl-C: where C code calls Python back, it ends there, and some other error follows."""
    came: list[int] = []
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return

    def handle(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.default_int_handler(number, frame)

    def unraisable(event: "sys.UnraisableHookArgs") -> None:
        if not issubclass(event.exc_type, KeyboardInterrupt):
            before(event)

    before = sys.unraisablehook
    sys.unraisablehook = unraisable
    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = before


@contextmanager
def _stdout_kept_clean(*, wanted: bool) -> Iterator[TextIO]:
    """Stdout for the one object alone: what libraries print (LightGBM, CatBoost) goes to stderr."""
    try:
        own = wanted and sys.stdout.fileno() == 1
    except OSError:  # a test's or a notebook's stdout is no file
        own = False
    if not own:
        yield sys.stdout
        return
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as stdout:
            yield stdout
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
