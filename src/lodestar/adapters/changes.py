"""What `features apply` would do to a registry or to tables, as plain values."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Change", "Changes", "Sign"]

Sign = Literal["+", "~", "-", "-/+"]


@dataclass(frozen=True)
class Change:
    """One thing that `apply` does: `+` adds, `~` changes, `-` removes.

    `-/+` makes a namespace anew: what its online rows mean has changed, so they and its watermark go.
    `breaks`: after it something is gone that somebody may read.
    """

    sign: Sign
    name: str
    what: str
    breaks: bool = False

    def __str__(self) -> str:
        return f"{self.sign} {self.name}: {self.what}"


@dataclass(frozen=True)
class Changes:
    """All that `apply` does: namespaces or tables first, then entities."""

    items: tuple[Change, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """In words."""
        return tuple(map(str, self.items))

    @property
    def breaking(self) -> tuple[Change, ...]:
        """Those that somebody must agree to."""
        return tuple(item for item in self.items if item.breaks)
