"""Port to whoever carries alerts to people: a message is given up, or delivered once."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from lodestar.errors import ExternalError

__all__ = ["AlertChannel", "Message", "Notice", "UndeliveredError"]


@dataclass(frozen=True)
class Notice:
    """One alert in a message. `id` is the same in all messages of one occurrence."""

    id: str
    status: Literal["firing", "reminder", "resolved", "test"]
    rule: str
    severity: str
    metric: str
    labels: Mapping[str, str]
    value: float
    condition: str
    since: datetime
    run_id: str
    summary: str


@dataclass(frozen=True)
class Message:
    """What a channel is told at one time."""

    project: str
    environment: str
    sent_at: datetime
    notices: tuple[Notice, ...]

    @property
    def title(self) -> str:
        """One line."""
        counts = {
            word: sum(one.status == status for one in self.notices)
            for status, word in (
                ("firing", "firing"),
                ("reminder", "still firing"),
                ("resolved", "resolved"),
                ("test", "test message"),
            )
        }
        said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
        rules = sorted({one.rule for one in self.notices})
        named = rules[0] if len(rules) == 1 else f"{len(rules)} rules"
        return f"[{self.project} {self.environment}] {said}: {named}"


class UndeliveredError(ExternalError):
    """A message did not arrive. `again`: it may, a little later; `after` that many seconds if told so.

    The words name neither addresses nor credentials: they go to terminals and logs.
    """

    def __init__(self, what: str, *, again: bool, after: float | None = None) -> None:
        super().__init__(what)
        self.again = again
        self.after = after


class AlertChannel(Protocol):
    """Delivers messages, one attempt at a time."""

    def send(self, message: Message, *, seconds: float) -> str:
        """Deliver it within so many seconds; returns what is odd about it, or nothing.

        Raises:
            UndeliveredError: it was not delivered.
        """
        ...
