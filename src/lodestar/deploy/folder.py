"""Writes rendered files, and never over one that somebody has changed since.

`.rendered` beside them lists the sha256 of each. A file that still has it may be replaced or removed by
the next rendering; any other is somebody's.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lodestar.errors import ExternalError, UsageError

__all__ = ["RECORD", "Content", "Written", "write_files"]

RECORD = ".rendered"
MOST_NAMED = 8
Content = bytes | Path


@dataclass(frozen=True)
class Written:
    """The files of a rendering below its folder, sorted, and how many of them are new or other."""

    folder: Path
    files: tuple[str, ...]
    changed: int


def write_files(folder: Path, files: Mapping[str, Content], *, force: bool) -> Written:
    """Write files (text, or a file to copy) below a folder; what was rendered before goes.

    Raises:
        UsageError: without `force`, a file is in the way, or has been changed.
        ExternalError: the folder cannot be written.
    """
    try:
        return _written(folder, files, force=force)
    except OSError as error:
        raise ExternalError(
            f"cannot be written: {error.strerror or error}", where=str(error.filename or folder)
        ) from error


def _written(folder: Path, files: Mapping[str, Content], *, force: bool) -> Written:
    before = _record(folder)
    new = {name: _sha256(content) for name, content in sorted(files.items())}
    there = {name: _on_disk(folder / name) for name in {*before, *new}}
    if not force:
        _refuse_changed(folder, before, new, there)
    changed = [name for name in new if there[name] != new[name]]
    for name in changed:
        _write(folder / name, files[name])
    for name in sorted(set(before) - set(new)):
        (folder / name).unlink(missing_ok=True)
        _remove_empty(folder, (folder / name).parent)
    _write(folder / RECORD, (json.dumps(new, indent=1) + "\n").encode())
    return Written(folder, tuple(new), len(changed))


def _refuse_changed(
    folder: Path,
    before: Mapping[str, str],
    new: Mapping[str, str],
    there: Mapping[str, str | None],
) -> None:
    if not before and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"{folder} is not empty, and `deploy render` did not write what is in it",
            hint="another --output, or --force to write there all the same",
        )
    changed = [
        name
        for name, found in there.items()
        if found is not None and found not in (before.get(name), new.get(name))
    ]
    if changed:
        more = f" and {len(changed) - MOST_NAMED} more" if len(changed) > MOST_NAMED else ""
        raise UsageError(
            f"changed since they were rendered: {', '.join(sorted(changed)[:MOST_NAMED])}{more}",
            where=str(folder),
            hint="another --output, or --force to write over them",
        )


def _record(folder: Path) -> dict[str, str]:
    try:
        value = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise UsageError(
            "cannot be read, so what was changed here is not known",
            where=str(folder / RECORD),
            hint="another --output",
        ) from error
    return {str(name): str(digest) for name, digest in value.items() if _is_below(str(name))}


def _is_below(name: str) -> bool:
    """Whether a name of the record stays in its folder: it decides what is removed."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def _on_disk(path: Path) -> str | None:
    """The file's sha256; None where there is none."""
    try:
        return _sha256(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _sha256(content: Content) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.writelines(_blocks(content))
        aside.replace(path)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _blocks(content: Content) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while block := file.read(1 << 20):
            yield block


def _remove_empty(folder: Path, below: Path) -> None:
    with suppress(OSError):  # not empty
        while below != folder:
            below.rmdir()
            below = below.parent
