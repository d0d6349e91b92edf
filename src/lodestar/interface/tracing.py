"""Port to whoever records what was done when: spans of one trace."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

__all__ = ["Span"]


class Span(Protocol):
    """Something that takes time, and belongs to a trace. Only what is `recorded` need be told more."""

    @property
    def recorded(self) -> bool:
        """Whether anybody will read it."""
        ...

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        ...

    @property
    def traceparent(self) -> str:
        """Itself as the parent of what others do for it (W3C Trace Context)."""
        ...

    def child(self, name: str) -> "AbstractContextManager[Span]":
        """A part of it, which takes as long as the block; what is raised there is noted and raised."""
        ...

    def part(
        self,
        name: str,
        began: int,
        ended: int,
        said: Mapping[str, str | float],
        *,
        failed: bool = False,
    ) -> None:
        """A part of it that is over (ns since 1970)."""
        ...

    def say(self, said: Mapping[str, str | float]) -> None:
        """Say something about it."""
        ...

    def fail(self, why: str) -> None:
        """It did not come to what it should."""
        ...

    def end(self) -> None:
        """It is over."""
        ...
