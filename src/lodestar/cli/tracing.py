"""A command's trace: a span for it, and one for each of its stages; nothing where tracing is off."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lodestar.interface.progress import Progress

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lodestar.interface.tracing import Span
    from lodestar.settings.loading import Environment

__all__ = ["Traced", "traced"]

SHUTDOWN_SECONDS = 3.0
# A scheduler's own trace, as OpenTelemetry hands it to processes that it starts.
CARRIER = {"traceparent": "TRACEPARENT", "tracestate": "TRACESTATE"}


class Traced:
    """Progress whose stages are spans as well; `about` says something of the whole command."""

    def __init__(self, progress: Progress, root: Span | None) -> None:
        self._progress = progress
        self._root = root
        self._stage: AbstractContextManager[Span] | None = None
        self._span: Span | None = None
        self._rows = 0

    @property
    def span(self) -> Span | None:
        """That of the stage."""
        return self._span

    def stage(self, what: str) -> None:
        """A new stage begins, and the one before is over."""
        self.over()
        self._progress.stage(what)
        if self._root is not None and self._root.recorded:
            # The first word says the kind of stage; the rest names models and counts.
            self._stage = self._root.child(what.split(maxsplit=1)[0].rstrip(",").lower())
            self._span = self._stage.__enter__()
            self._span.say({"lodestar.stage": what})

    def rows(self, count: int, total: int | None) -> None:
        """So many rows are done in this stage."""
        self._rows = count
        self._progress.rows(count, total)

    def detail(self, what: str) -> None:
        """How this stage goes."""
        self._progress.detail(what)

    def note(self, message: str) -> None:
        """Something that the user should know of."""
        self._progress.note(message)

    def about(self, **said: str | float) -> None:
        """Say something of the whole command, such as its run."""
        if self._root is not None:
            self._root.say({f"lodestar.{name}": value for name, value in said.items()})

    def over(self, error: BaseException | None = None) -> None:
        """The stage is over."""
        if self._stage is None or self._span is None:
            return
        if self._rows:
            self._span.say({"lodestar.rows": self._rows})
        if error is not None:
            self._span.fail(type(error).__name__)
        self._stage.__exit__(None, None, None)
        self._stage = self._span = None
        self._rows = 0


@contextmanager
def traced(
    environment: Environment,
    command: str,
    progress: Progress,
    carried: Callable[[str], str | None] = os.environ.get,
) -> Iterator[Traced]:
    """Trace a command, and send what was recorded before it ends; what cannot be sent is a note."""
    section = environment.config.tracing
    if not section.enabled:
        yield Traced(progress, None)
        return
    from lodestar.adapters.otlp import Traces

    traces = Traces(section, share=1.0, service="lodestar")
    carrier = {name: value for name, key in CARRIER.items() if (value := carried(key))}
    said = {"lodestar.environment": environment.name}
    root = traces.begin(f"lodestar {command}", carrier=carrier, said=said)
    steps = Traced(progress, root)
    try:
        yield steps
        steps.over()
    except BaseException as error:
        steps.over(error)
        root.fail(type(error).__name__)
        raise
    finally:
        root.end()
        if not traces.close(seconds=SHUTDOWN_SECONDS):
            progress.note("traces were not delivered: see tracing in the config")
