"""What all workers of a server serve at this moment: a small file, written whole."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from lodestar.artifact.register import OpenedRun
from lodestar.serving.problems import ProblemError

__all__ = [
    "Cause",
    "ServedRun",
    "SharedState",
    "State",
    "dealt_with",
    "proven",
    "refused",
    "rolled_back",
    "swapped",
]

Cause = Literal["start", "swap", "follow", "rollback"]
DIGITS = 20
AT_ONCE = fcntl.LOCK_EX | fcntl.LOCK_NB


class ServedRun(msgspec.Struct, frozen=True):
    """A run, where its artifact lies, and how its rows are scored, once a process has proven it."""

    run_id: str
    run_name: str
    digest: str
    folder: str
    scoring: str = ""
    why_not_faster: str = ""

    @classmethod
    def of(cls, run: OpenedRun, scoring: str = "", why_not_faster: str = "") -> "ServedRun":
        """From a run that was opened."""
        return cls(run.run_id, run.run_name, run.digest, str(run.folder), scoring, why_not_faster)

    def opened(self) -> OpenedRun:
        """As the artifact's loader takes it."""
        return OpenedRun(self.run_id, self.run_name, self.digest, Path(self.folder))

    def plain(self) -> dict[str, str]:
        """What clients may know of it."""
        return {"run_id": self.run_id, "run_name": self.run_name, "digest": self.digest}


class State(msgspec.Struct, frozen=True):
    """`champion` answers since `since`, because of `cause`; `said` tells more about it in words.

    `former` can come back. `watched_until` (monotonic seconds, one clock for the machine) is when nobody
    looks at the champion's doings any more; `starts` counts workers that had to start anew until then.
    `followed` is the digest that the alias meant when it was last dealt with. `refused` says which run
    was not brought in, and why.
    """

    generation: int
    champion: ServedRun
    cause: Cause
    since: str
    former: ServedRun | None = None
    said: str = ""
    reason: str = ""
    watched_until: float = 0.0
    starts: int = 0
    followed: str = ""
    refused: str = ""

    @property
    def watched(self) -> bool:
        """Whether the champion is new, and may still be taken back by itself."""
        return self.former is not None and time.monotonic() < self.watched_until


def swapped(
    state: State, run: ServedRun, *, cause: Cause, watch_seconds: float, followed: str = ""
) -> State:
    """The state with another champion."""
    return State(
        state.generation + 1,
        run,
        cause,
        _now(),
        former=state.champion,
        watched_until=time.monotonic() + watch_seconds,
        followed=followed or state.followed,
    )


def rolled_back(state: State, *, reason: str, said: str, generation: int | None = None) -> State:
    """The state with the former champion; `generation` is the one to be taken back, if not just any.

    Raises:
        ProblemError: 409 where there is no former one, or another change came first.
    """
    if generation is not None and state.generation != generation:
        raise ProblemError(409, "changed-meanwhile", "Another model was brought in meanwhile.")
    if state.former is None:
        raise ProblemError(409, "no-former-model", "There is no former model to go back to.")
    return State(
        state.generation + 1,
        state.former,
        "rollback",
        _now(),
        said=f"run {state.champion.run_id} was taken back: {said}",
        reason=reason,
        followed=state.followed,
    )


def proven(state: State, run: ServedRun) -> State:
    """The state; if that run is the champion, with how its rows are scored."""
    return (
        state
        if state.champion.digest != run.digest
        else msgspec.structs.replace(state, champion=run)
    )


def dealt_with(state: State, *, followed: str) -> State:
    """The state, with what the alias means now; nothing of it is to be done."""
    return msgspec.structs.replace(state, followed=followed or state.followed)


def refused(state: State, run_id: str, why: str, *, followed: str = "") -> State:
    """The state with a note of a run that was not brought in."""
    return msgspec.structs.replace(
        state, refused=f"{_now()} run {run_id}: {why}", followed=followed or state.followed
    )


class SharedState:
    """The state's file in a private folder; any worker changes it, and all see that it changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "state.json"
        self._decode = msgspec.json.Decoder(State).decode
        self._seen: tuple[int, int] | None = None
        self._leading: int | None = None
        self._own: int | None = None

    @classmethod
    def begin(cls, folder: Path, champion: OpenedRun) -> "SharedState":
        """Write the first state."""
        found = cls(folder)
        run = ServedRun.of(champion)
        found._write(State(0, run, "start", _now(), followed=champion.digest))
        return found

    def read(self) -> State:
        """As it is now."""
        return self._decode(self._path.read_bytes())

    def has_changed(self) -> bool:
        """Whether the file is another one than when this was last asked; takes microseconds."""
        found = self._path.stat()
        seen, self._seen = self._seen, (found.st_ino, found.st_mtime_ns)
        return seen != self._seen

    def change(self, made: Callable[[State], State]) -> State:
        """Write what is made of the state, while nobody else writes; what `made` raises leaves it."""
        with self._locked("state.lock"):
            state = made(self.read())
            self._write(state)
        return state

    def is_swapping(self) -> bool:
        """Whether some worker brings in a model."""
        with self._locked("swap.lock", fcntl.LOCK_SH | fcntl.LOCK_NB) as nobody:
            return not nobody

    @contextmanager
    def swapping(self) -> Iterator[bool]:
        """Be the only one of all workers who brings in a model; False: another one does."""
        with self._locked("swap.lock", AT_ONCE) as mine:
            yield mine

    def lead(self) -> bool:
        """Whether this process is the one that follows an alias; one is as long as it lives."""
        if self._leading is None:
            handle = self._open("leader.lock")
            if not _lock(handle, AT_ONCE):
                os.close(handle)
                return False
            self._leading = handle
        return True

    def tell(self, generation: int) -> None:
        """This process answers with that generation's models."""
        said = f"{generation:0{DIGITS}}".encode()
        if self._own is None:
            name = f"{os.getpid()}-{time.monotonic_ns()}"
            self._own = self._open(f"new-{name}")
            _lock(self._own)
            os.pwrite(self._own, said, 0)
            (self._folder / f"new-{name}").rename(self._folder / f"worker-{name}")
        os.pwrite(self._own, said, 0)

    def generations(self) -> dict[int, int]:
        """The generation that each living worker has, by process id."""
        found = {}
        for path in self._folder.glob("worker-*"):
            try:
                handle = os.open(path, os.O_RDONLY)
            except FileNotFoundError:  # another worker saw that its process has ended
                continue
            try:
                if _lock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB):  # its process has ended
                    path.unlink(missing_ok=True)
                else:
                    found[int(path.name.split("-")[1])] = int(os.read(handle, DIGITS))
            finally:
                os.close(handle)
        return found

    def close(self) -> None:
        """Lead no more, and be no worker."""
        for handle in (self._leading, self._own):
            if handle is not None:
                os.close(handle)
        self._leading = self._own = None

    def _write(self, state: State) -> None:
        aside = self._folder / f"state-{os.getpid()}.tmp"
        try:
            aside.write_bytes(msgspec.json.encode(state))
            aside.replace(self._path)
        finally:
            aside.unlink(missing_ok=True)

    def _open(self, name: str) -> int:
        return os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o600)

    @contextmanager
    def _locked(self, name: str, how: int = fcntl.LOCK_EX) -> Iterator[bool]:
        handle = self._open(name)
        try:
            yield _lock(handle, how)
        finally:
            os.close(handle)


def _lock(handle: int, how: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file until it is closed, by this process or by its end."""
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
