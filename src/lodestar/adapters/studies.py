"""Where searches are kept: a journal file per study, or a database that several machines share."""

import fcntl
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock  # its base class has no public name

from lodestar.errors import ExternalError, UsageError

__all__ = ["opened_study"]


@contextmanager
def opened_study(
    storage: str,
    project: Path,
    *,
    name: str,
    direction: Literal["maximize", "minimize"],
    pruner: optuna.pruners.BasePruner,
    resume: bool,
) -> Iterator[optuna.Study]:
    """A new study, or with `resume` the one of this name as it was left.

    `storage` is a directory below the project, or a database URL. A study that is in the way of a
    new one is kept under another name.

    Raises:
        UsageError: there is nothing to resume.
        ExternalError: it cannot be read or written, or another command is running it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if "://" in storage:
        with _translated(name):
            database = optuna.storages.RDBStorage(storage)
            yield _study(database, name, direction, pruner, resume=resume)
        return
    folder = project / storage
    path = folder / f"{name}.journal"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / f".{name}.lock").open("w")
    except OSError as error:
        raise ExternalError(
            f"the study cannot be kept in {folder}: {error.strerror}",
            hint="see hyperparameter_tuning.storage in the config",
        ) from error
    with lock:
        _hold(lock.fileno(), name)
        if path.exists() and not resume:
            path.rename(folder / f"{name}.{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.journal")
        if resume:
            _mend(path)
        with _translated(name):
            backend = JournalFileBackend(str(path), lock_obj=_Held())
            kept = JournalStorage(backend)
        yield _study(kept, name, direction, pruner, resume=resume)


class _Held(BaseJournalFileLock):
    """The whole study is locked by its one writer, so that no lock can be left behind by a kill."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


def _study(
    storage: BaseStorage,
    name: str,
    direction: Literal["maximize", "minimize"],
    pruner: optuna.pruners.BasePruner,
    *,
    resume: bool,
) -> optuna.Study:
    if resume:
        try:
            return optuna.load_study(study_name=name, storage=storage, pruner=pruner)
        except KeyError as error:
            raise _nothing(name) from error
    return optuna.create_study(storage=storage, study_name=name, direction=direction, pruner=pruner)


def _nothing(name: str) -> UsageError:
    return UsageError(
        f"there is no search {name} to resume",
        hint="it is named by recipe, search space and data: train without --resume to begin one",
    )


def _hold(descriptor: int, name: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ExternalError(
            f"another command is running the search {name}", hint="wait for it, or stop it"
        ) from error


def _mend(path: Path) -> None:
    """Cut off a last line that a killed writer left unfinished; anything worse is an error."""
    if not path.is_file() or not path.stat().st_size:
        raise _nothing(path.stem)
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            json.loads(line)
        except ValueError as error:
            raise ExternalError(
                f"the search's journal is damaged in line {number}",
                where=str(path),
                hint="restore it from a copy, or train without --resume to begin a new search",
            ) from error
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except (optuna.exceptions.OptunaError, OSError, ValueError) as error:
        reason = re.sub(r"//[^/@\s]+@", "//***@", str(error).splitlines()[0])
        raise ExternalError(
            f"the study {name} cannot be opened: {reason}",
            hint="see hyperparameter_tuning.storage in the config",
        ) from error
