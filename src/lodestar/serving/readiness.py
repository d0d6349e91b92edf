"""Whether this process should get requests, as load balancers ask it."""

from typing import Literal

__all__ = ["Readiness"]


class Readiness:
    """starting → ready → draining. It may be not ready for a while, and then `reason` says why.

    Draining is the end: nothing makes it ready again.
    """

    def __init__(self) -> None:
        self.state: Literal["starting", "ready", "draining"] = "starting"
        self.reason: str | None = None

    @property
    def ready(self) -> bool:
        """Whether requests should come here."""
        return self.state == "ready" and self.reason is None

    @property
    def draining(self) -> bool:
        """Whether it was told to end."""
        return self.state == "draining"

    @property
    def words(self) -> str:
        """Why requests should not come here."""
        return self.state if self.reason is None or self.draining else self.reason

    def begin(self) -> None:
        """Everything is loaded."""
        if not self.draining:
            self.state = "ready"

    def pause(self, reason: str) -> None:
        """Ask for no requests until `resume`; `reason` is shown to whoever asks."""
        self.reason = reason

    def resume(self) -> None:
        """Ask for requests again."""
        self.reason = None

    def drain(self) -> None:
        """What runs is finished, nothing new is begun."""
        self.state = "draining"
