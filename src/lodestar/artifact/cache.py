"""Artifacts of a remote store, kept below the project: `<root>/<digest>/`.

A copy appears whole, by a rename. It is verified whenever it is asked for, so a damaged one counts as
none and is fetched again. The most recently used ones are kept, and all that were used within a day
or are held by a running process.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lodestar.artifact.folders import discard, held, new_folder
from lodestar.artifact.manifest import verify
from lodestar.errors import ArtifactError

__all__ = ["ArtifactCache"]

_DIGEST = re.compile(r"^[0-9a-f]{64}$")
_DAY = 86_400.0


class ArtifactCache:
    """Local copies by digest. Any number of processes may share one."""

    def __init__(self, root: Path, *, keep: int) -> None:
        self._root = root
        self._keep = keep

    def find(self, digest: str) -> Path | None:
        """The verified copy; None where there is none, or where it was damaged, and is now removed."""
        if not _DIGEST.match(digest):
            return None
        folder = self._root / digest
        with held(folder) as there:
            if not there:
                return None
            try:
                verify(folder, expected=digest)
            except (ArtifactError, OSError):
                with suppress(OSError):  # where it cannot be removed, fetching will say why
                    discard(folder)
                return None
            with suppress(OSError):  # a read-only file system: it is not pruned either
                os.utime(folder)
        return folder

    def fetch(self, digest: str, download: Callable[[Path], Path]) -> Path:
        """The verified copy, fetched where there is none.

        `download(folder)` puts the artifact into the folder, or into one below it, and says where.

        Raises:
            ArtifactError: what was fetched is not what the run recorded.
        """
        if (found := self.find(digest)) is not None:
            return found
        folder = self._root / digest
        with new_folder(self._root) as aside:
            copy = download(aside)
            verify(copy, expected=digest)
            try:
                copy.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster, and theirs is as good
                    raise
        self._prune()
        return folder

    def holds(self, folder: Path) -> bool:
        """Whether a folder is one of the cache's."""
        return folder.parent == self._root

    @contextmanager
    def in_use(self, digest: str) -> Iterator[None]:
        """Keep a copy from being pruned as long as this lasts, or the process lives."""
        with held(self._root / digest):
            yield

    def _prune(self) -> None:
        copies = [path for path in self._root.iterdir() if _DIGEST.match(path.name)]
        now = time.time()
        unused = sorted((now - _last_use(path, now), path) for path in copies)
        for seconds, folder in unused[self._keep :]:
            if seconds < _DAY:
                continue
            with held(folder, alone=True) as mine:
                if mine:
                    discard(folder)


def _last_use(folder: Path, now: float) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another process has removed it
        return now
