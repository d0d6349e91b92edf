"""Where searches are kept: a journal file per study, or a database that several machines share."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

import optuna
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock  # its base class has no public name

from lodestar.adapters.studies.database import opened_database
from lodestar.adapters.studies.errors import busy, translated
from lodestar.adapters.studies.mirror import Mirrored
from lodestar.errors import ExternalError, UsageError

__all__ = ["opened_study", "probe_database"]

# Where a database's studies are locked, below the project.
LOCKS = ".lodestar/studies"


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
    """A new study, or with `resume` the latest of this name as it was left.

    `storage` is a directory below the project, or a database URL. A journal that is in the way of a
    new one is renamed; in a database the new study's name gets the time behind it. One command at a
    time runs a study.

    Raises:
        UsageError: there is nothing to resume.
        ExternalError: it cannot be read or written, or another command is running it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    in_database = "://" in storage
    folder = project / (LOCKS if in_database else storage)
    with _locked(folder, name):
        if in_database:
            with opened_database(storage, project, locks=folder, name=name) as database:
                yield _of_database(database, name, direction, pruner, resume=resume)
            return
        path = folder / f"{name}.journal"
        if path.exists() and not resume:
            path.rename(folder / f"{name}.{_now()}.journal")
        if resume:
            _mend(path)
        with translated(name):
            kept = JournalStorage(_Journal(str(path), lock_obj=_Held()))
            study = _loaded(kept, name, pruner) if resume else _new(kept, name, direction, pruner)
        yield study


def probe_database(storage: str, project: Path) -> str:
    """Open a database of studies, which makes Optuna's tables where they are missing; in words.

    Raises:
        UsageError: the URL cannot be read.
        ExternalError: it cannot be used.
    """
    folder = project / LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    with opened_database(storage, project, locks=folder, name=f"check {token_hex(4)}"):
        return "the database opens, and has Optuna's tables"


class _Held(BaseJournalFileLock):
    """The whole study is locked by its one writer, so that no lock can be left behind by a kill."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


class _Journal(JournalFileBackend):
    """A journal whose disk may be full."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            raise ExternalError(
                f"the study cannot be written: {error.strerror}",
                where=self._file_path,
                hint="make room, then go on with train --resume",
            ) from error


def _of_database(
    database: RDBStorage,
    name: str,
    direction: Literal["maximize", "minimize"],
    pruner: optuna.pruners.BasePruner,
    *,
    resume: bool,
) -> optuna.Study:
    with translated(name):
        names = [study.study_name for study in database.get_all_studies()]
        known = [found for found in names if found == name or found.startswith(f"{name}@")]
        if resume and not known:
            raise _nothing(name)
        if resume:
            there = database.get_study_id_from_name(max(known))
        else:
            directions = [optuna.study.StudyDirection[direction.upper()]]
            there = database.create_new_study(directions, f"{name}@{_now()}" if known else name)
        return optuna.load_study(study_name=None, storage=Mirrored(database, there), pruner=pruner)


def _loaded(storage: JournalStorage, name: str, pruner: optuna.pruners.BasePruner) -> optuna.Study:
    try:
        return optuna.load_study(study_name=name, storage=storage, pruner=pruner)
    except KeyError as error:
        raise _nothing(name) from error


def _new(
    storage: JournalStorage,
    name: str,
    direction: Literal["maximize", "minimize"],
    pruner: optuna.pruners.BasePruner,
) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name=name, direction=direction, pruner=pruner)


def _now() -> str:
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """Hold a lock that ends with the process, however that ends."""
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
        yield


def _nothing(name: str) -> UsageError:
    return UsageError(
        f"there is no search {name} to resume",
        hint="it is named by recipe, search space, data and Lodestar's version: train without --resume "
        "to begin one",
    )


def _hold(descriptor: int, name: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise busy(name) from error


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
