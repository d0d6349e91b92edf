"""Try out all that an environment takes from outside, piece by piece; none hides another."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from itertools import chain

from lodestar.adapters.threads.daemon import DaemonThreads
from lodestar.errors import ExternalError, LodestarError
from lodestar.interface.progress import Progress
from lodestar.pipelines.online_pieces import OnlinePieces, Piece, Said, State
from lodestar.settings.loading import Environment, Settings

__all__ = ["CheckedOnline", "CheckedPiece", "check_online"]

_MOST_THREADS = 64  # one that hangs is left behind with its piece


@dataclass(frozen=True)
class CheckedPiece:
    """How a piece was found. `error` says why it failed, `bug` is an exception that is none of ours."""

    name: str
    where: str
    state: State
    said: str
    seconds: float
    error: LodestarError | None = None
    bug: BaseException | None = field(default=None, repr=False)


@dataclass(frozen=True)
class CheckedOnline:
    """All pieces of an environment, in the order in which they were tried."""

    environment: str
    pieces: tuple[CheckedPiece, ...]

    @property
    def exit_code(self) -> int:
        """The highest of those that failed; 0 where none did."""
        return max((piece.error.exit_code for piece in self.pieces if piece.error), default=0)

    @property
    def bug(self) -> BaseException | None:
        """The first exception that is a bug of ours or of a package's."""
        return next((piece.bug for piece in self.pieces if piece.bug), None)


def check_online(
    environment: Environment, settings: Settings | None, *, within: float, tell: Progress
) -> CheckedOnline:
    """Try every piece for at most `within` seconds; `settings` are those of one recipe, if asked for.

    What is written for it is removed again. Nothing raises but what the caller's own Ctrl-C does.
    """
    pieces = OnlinePieces(environment, settings)
    # A namespace's pieces are known after the declarations were read.
    every: Iterator[Piece] = chain.from_iterable(
        group() for group in (pieces.of_stores, pieces.of_features, pieces.of_results)
    )
    threads = DaemonThreads(_MOST_THREADS, "check")
    tell.stage(f"Trying out {environment.name}")
    try:
        checked = tuple(_tried(piece, threads, within, tell) for piece in every)
    finally:
        threads.end()
    tell.detail(f"{len(checked)} pieces")
    return CheckedOnline(environment.name, checked)


def _tried(piece: Piece, threads: DaemonThreads, within: float, tell: Progress) -> CheckedPiece:
    tell.detail(piece.name)
    began = time.monotonic()
    future = threads.submit(piece.work)
    said, error, bug = Said("failed", ""), None, None
    try:
        said = _in_time(future, within)
    except LodestarError as found:
        error = found
    except Exception as found:  # noqa: BLE001 -- the edge: whatever it is, the other pieces are tried
        bug = found
    seconds = time.monotonic() - began
    words = said.words if error is None else error.what
    if bug is not None:
        words = f"{type(bug).__name__}, which is a bug: its trace is below"
    return CheckedPiece(piece.name, piece.where, said.state, words, seconds, error, bug)


def _in_time(future: "Future[Said]", within: float) -> Said:
    if not wait([future], within).done:
        raise ExternalError(
            f"no answer within {within:g} s",
            hint="see that it runs and can be reached from here; --within waits longer",
        )
    return future.result()
