"""Folders that appear whole or not at all, and that nobody removes while somebody uses them.

A folder is held by a lock on the folder itself (flock), which ends with the process that has it.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["discard", "held", "new_folder", "remove_left_over"]

_ASIDE = ".aside-"


@contextmanager
def held(folder: Path, *, alone: bool = False) -> Iterator[bool]:
    """Hold a folder; tells whether it is there.

    Several may hold one folder, unless one holds it `alone`: that one does not wait for the others, and
    is told False where there are any.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        yield False
        return
    try:
        yield _locked(handle, alone=alone) and _is_still(folder, handle)
    finally:
        os.close(handle)


@contextmanager
def new_folder(root: Path) -> Iterator[Path]:
    """An empty folder below `root`, nobody else's; removed at the end unless it was renamed."""
    root.mkdir(parents=True, exist_ok=True)
    remove_left_over(root)
    while True:
        aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=root))
        with held(aside, alone=True) as mine:
            if not mine:  # taken for a left-over before it was held
                continue
            try:
                yield aside
            finally:
                shutil.rmtree(aside, ignore_errors=True)
            return


def discard(folder: Path) -> None:
    """Remove a folder; nobody sees a half of it."""
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=folder.parent))
    try:
        folder.rename(aside)
    except FileNotFoundError:  # another process was faster
        pass
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_left_over(root: Path) -> None:
    """Remove what killed processes left half done."""
    for aside in root.glob(f"{_ASIDE}*"):
        with held(aside, alone=True) as mine:
            if mine:
                shutil.rmtree(aside, ignore_errors=True)


def _locked(handle: int, *, alone: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    return True


def _is_still(folder: Path, handle: int) -> bool:
    """Whether what was locked still has that name: it may have been removed while we waited."""
    try:
        return os.path.samestat(folder.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
