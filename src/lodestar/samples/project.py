"""A project that trains at once, offline: config, recipes, SQL and data."""

import shutil
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from uuid import uuid4

from lodestar.errors import ExternalError, UsageError
from lodestar.samples.stacks import Stack

__all__ = ["create_project", "write_sample_data"]

# A file called .gitignore inside the package would hide files from this repository's own git.
INSTALLED_AS = {"gitignore": ".gitignore"}
MOST_NAMED = 5


def create_project(target: Path, stack: Stack | None = None) -> tuple[Path, ...]:
    """Write a project to `target`, with the config of a stack if one is given, and return its files.

    All or nothing: it is built in a hidden directory first. A directory with other files in it is
    fine; one that has any of ours is not touched.

    Raises:
        UsageError: A file is in the way.
        ExternalError: The directory cannot be written.
    """
    target = target.absolute()
    try:
        return _create(target, _templates(stack))
    except OSError as exc:
        raise ExternalError(
            f"cannot write the project: {exc.strerror or exc}",
            where=str(target),
            hint="the directory must be writable and have space left",
        ) from exc


def write_sample_data(root: Path) -> tuple[Path, ...]:
    """Write the bundled tables and the shop to `root`; the same bytes each time.

    Raises:
        ExternalError: The folder cannot be written.
    """
    from lodestar.samples.bundled import export_bundled
    from lodestar.samples.shop import write_shop

    return (*export_bundled(root), *write_shop(root))


def _create(target: Path, templates: Mapping[Path, bytes]) -> tuple[Path, ...]:
    _refuse_if_in_the_way(target, list(templates))
    staging = _nearest_directory(target) / f".lodestar-init-{uuid4().hex}"
    try:
        _write(staging, templates)
        write_sample_data(staging / "data")
        names = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
        _refuse_if_in_the_way(target, names)
        _move(staging, target, names)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return tuple(target / name for name in names)


def _templates(stack: Stack | None) -> dict[Path, bytes]:
    """The project's files but for its data, by their path below the project."""
    roots = [files("lodestar.samples") / "project"]
    if stack is not None and stack.folder is not None:
        roots.append(stack.folder)
    return {
        Path(INSTALLED_AS.get(str(name), name)): content
        for root in roots
        for name, content in sorted(_walk(root, PurePosixPath()))
    }


def _walk(folder: Traversable, below: PurePosixPath) -> Iterator[tuple[PurePosixPath, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, below / entry.name)
        else:
            yield below / entry.name, entry.read_bytes()


def _write(staging: Path, templates: Mapping[Path, bytes]) -> None:
    for name, content in templates.items():
        path = staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _nearest_directory(target: Path) -> Path:
    """Where to build, so that moving is a rename: `target`, or the first directory above it."""
    return next(place for place in (target, *target.parents) if place.is_dir())


def _refuse_if_in_the_way(target: Path, names: list[Path]) -> None:
    """Name what exists already: our files, or a file where one of our folders belongs."""
    taken = [name for name in names if _exists(target / name)]
    folders = {target / folder for name in names for folder in name.parents} | {*target.parents}
    taken += sorted(place for place in folders if _exists(place) and not place.is_dir())
    if taken:
        named = ", ".join(map(str, taken[:MOST_NAMED]))
        more = f" and {len(taken) - MOST_NAMED} more" if len(taken) > MOST_NAMED else ""
        raise UsageError(
            f"a project cannot be made here, these exist: {named}{more}",
            where=str(target),
            hint="choose another directory, or move them away",
        )


def _exists(path: Path) -> bool:
    """Whether anything has this name, be it a link to nowhere."""
    return path.is_symlink() or path.exists()


def _move(staging: Path, target: Path, names: list[Path]) -> None:
    """Move every file, or put everything back as it was."""
    moved: list[Path] = []
    made: list[Path] = []
    try:
        for name in names:
            path = target / name
            missing = [folder for folder in path.parents if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir()
                made.append(folder)
            (staging / name).rename(path)
            moved.append(path)
    except BaseException:
        for path in moved:
            path.unlink()
        for folder in reversed(made):
            folder.rmdir()
        raise
