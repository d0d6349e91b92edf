"""PostgreSQL refuses to run as root: who runs it then, and which folders that user can enter."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from lodestar.errors import ExternalError

__all__ = ["Account", "server_account"]

NOBODY = "nobody"


class _OfProcess(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """A user of this machine, as whom root starts a server."""

    name: str
    uid: int
    gid: int

    def of_process(self) -> _OfProcess:
        """The arguments of subprocess that give root's rights up."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def reaches(self, path: Path) -> bool:
        """Whether every folder on the way to an existing path, and the path, can be entered."""
        place = path.resolve()
        return all(self._enters(folder.stat()) for folder in (place, *place.parents))

    def own(self, path: Path) -> None:
        """Make a folder and all in it this user's."""
        os.chown(path, self.uid, self.gid)
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.chown(Path(folder, name), self.uid, self.gid, follow_symlinks=False)

    def _enters(self, found: os.stat_result) -> bool:
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        if found.st_gid == self.gid:
            return bool(found.st_mode & stat.S_IXGRP)
        return bool(found.st_mode & stat.S_IXOTH)


def server_account(folder: Path) -> Account | None:
    """Who runs what may not be root: the folder's owner, else `nobody`; none when we are not root.

    Raises:
        ExternalError: this machine has no user `nobody`.
    """
    if os.geteuid() != 0:
        return None
    entry = _entry(folder.stat().st_uid) or _entry(NOBODY)
    if entry is None:
        raise ExternalError(
            f"PostgreSQL refuses to run as root, and there is no user {NOBODY!r} to run it",
            hint="run the command as a normal user",
        )
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _entry(user: int | str) -> pwd.struct_passwd | None:
    """The user of a name, or of an id other than root's; none if this machine does not know it."""
    try:
        if isinstance(user, str):
            return pwd.getpwnam(user)
        return pwd.getpwuid(user) if user != 0 else None
    except KeyError:
        return None
