"""Progress on a terminal: one line that moves. Elsewhere only what the user should know."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from lodestar.cli.drawing import styled
from lodestar.cli.escaping import escape_control
from lodestar.interface.tracing import Span

__all__ = ["ConsoleProgress"]

SPINNER = 2  # columns


class ConsoleProgress:
    """Shows the stage, its rows and its speed; leaves a line with its time when it is over."""

    span: Span | None = None

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._stage = ""
        self._began = 0.0
        self._detail = ""

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the last stage."""
        self._close(finished=kind is None)

    def stage(self, what: str) -> None:
        """Close the stage before and begin this one."""
        self._close(finished=True)
        self._stage, self._began, self._detail = what, time.monotonic(), ""
        if self._console.is_terminal:
            self._status = self._console.status(self._line(what))
            self._status.start()

    def done(self) -> None:
        """Close the stage; nothing moves until the next begins."""
        self._close(finished=True)

    def rows(self, count: int, total: int | None) -> None:
        """Show rows and speed."""
        spent = max(time.monotonic() - self._began, 1e-9)
        of = f" of {total:,}" if total else ""
        left = f", {(total - count) / (count / spent):.0f} s left" if total and count else ""
        self._detail = f"{count:,}{of} rows"
        if self._status is not None:
            speed = f"{count / spent:,.0f} rows/s{left}"
            self._status.update(self._line(f"{self._stage}  {self._detail}, {speed}"))

    def detail(self, what: str) -> None:
        """Show how the stage goes."""
        self._detail = what
        if self._status is not None:
            self._status.update(self._line(f"{self._stage}  {what}"))

    def note(self, message: str) -> None:
        """Print what the user should know."""
        # The message quotes column names and values: neither markup nor control characters of theirs.
        line = escape_control(message.replace("\n", "\\n"))
        self._console.print(styled("note: ", "yellow") + Text(line), soft_wrap=True)

    def _close(self, *, finished: bool) -> None:
        if self._status is None:
            return
        self._status.stop()
        self._status = None
        if finished:
            spent = time.monotonic() - self._began
            detail = f"  {self._detail}" if self._detail else ""
            line = Text(escape_control(f"{self._stage}{detail}"))
            time_taken = Text(f"  {spent:.1f} s", style="dim")
            done = styled("✓ ", "green") + line + time_taken
            self._console.print(done, soft_wrap=True)

    def _line(self, words: str) -> Text:
        """One line of the terminal: names in it are no markup, and what does not fit is cut off."""
        line = Text(escape_control(words))
        line.truncate(self._console.width - SPINNER, overflow="ellipsis")
        return line
