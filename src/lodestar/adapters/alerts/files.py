"""What is remembered of alerts between commands: one JSON file an environment, and its locks.

The file is replaced as a whole, so a kill leaves the old or the new one. Locks are the kernel's (flock):
they end with the process that holds them, however it ends.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from lodestar.core.alerts.telling import AlertState, NewerStateError
from lodestar.errors import ExternalError

__all__ = ["AlertFiles"]

POLL_SECONDS = 0.02


class AlertFiles:
    """The alerts of one environment in a folder, which is made when something is first written."""

    def __init__(self, folder: Path, environment: str) -> None:
        self._folder = folder
        self._name = environment

    def read(self) -> tuple[AlertState, str]:
        """What is kept, and a note where it had to be begun anew; nothing is kept at first.

        A damaged file is put aside, so that a human can look at it.

        Raises:
            ExternalError: it cannot be read, or a later version has written it.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return AlertState(), ""
        except (OSError, UnicodeDecodeError) as error:
            raise _external(error, "what is known of alerts cannot be read") from error
        try:
            return AlertState.from_json(json.loads(text)), ""
        except NewerStateError as error:
            raise ExternalError(
                f"{self._path.name} was written by a later version", hint="upgrade Lodestar"
            ) from error
        except (KeyError, TypeError, ValueError, AttributeError):
            aside = self._path.with_name(f"{self._path.stem}-damaged-{uuid4().hex[:8]}.json")
            self._path.replace(aside)
            return AlertState(), f"it was damaged and is begun anew; see {aside.name}"

    def write(self, state: AlertState) -> None:
        """Keep it instead, under the lock `state`; whoever reads sees the old or the new one.

        Raises:
            ExternalError: it cannot be written.
        """
        aside = self._path.with_name(f".{self._name}.tmp")  # what a kill has left is written over
        try:
            with aside.open("w", encoding="utf-8") as file:
                json.dump(state.to_json(), file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path)
        except OSError as error:
            raise _external(error, "what is known of alerts cannot be written") from error

    @contextmanager
    def locked(self, what: str, *, until: float) -> Iterator[None]:
        """Be the only one, of all processes and threads, who does this with this environment's alerts.

        Raises:
            ExternalError: another one did, until that time (monotonic); or no lock can be made.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(
                self._folder / f"{self._name}.{what}.lock", os.O_RDWR | os.O_CREAT, 0o600
            )
        except OSError as error:
            raise _external(error, "what is known of alerts cannot be written") from error
        try:
            while not _lock(handle):
                if time.monotonic() >= until:
                    raise ExternalError("another process is at it")
                time.sleep(POLL_SECONDS)
            yield
        finally:
            os.close(handle)

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._name}.json"


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _external(error: OSError | UnicodeDecodeError, what: str) -> ExternalError:
    reason = getattr(error, "strerror", None) or type(error).__name__
    return ExternalError(f"{what}: {reason}")
