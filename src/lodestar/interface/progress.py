"""Port to whoever is told how long work goes on."""

from typing import Protocol

from lodestar.interface.tracing import Span

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Told of stages and rows."""

    @property
    def span(self) -> Span | None:
        """The stage's span, for a stage that has parts; None where nothing is recorded."""
        ...

    def stage(self, what: str) -> None:
        """A new stage begins."""
        ...

    def rows(self, count: int, total: int | None) -> None:
        """So many rows are done in this stage, of so many where that is known."""
        ...

    def detail(self, what: str) -> None:
        """How this stage goes, in words that replace those before."""
        ...

    def note(self, message: str) -> None:
        """Something that the user should know of."""
        ...


class Silent:
    """Says nothing."""

    span: Span | None = None

    def stage(self, what: str) -> None:
        """Say nothing."""

    def rows(self, count: int, total: int | None) -> None:
        """Say nothing."""

    def detail(self, what: str) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say nothing."""
