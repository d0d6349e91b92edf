"""The sha256 of every file of an artifact: checked before any of them is opened."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from lodestar.errors import ArtifactError

__all__ = ["MANIFEST", "digest_of", "verify", "write_manifest"]

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1


def write_manifest(folder: Path) -> str:
    """List every file below `folder` in its manifest.json; return the artifact's digest."""
    files = {name: _sha256(path) for name, path in _files(folder)}
    text = json.dumps(
        {"manifest_version": MANIFEST_VERSION, "sha256": files}, indent=1, sort_keys=True
    )
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return digest_of(folder)


def digest_of(folder: Path) -> str:
    """The artifact's digest: the sha256 of its manifest."""
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise ArtifactError(
            f"the artifact has no {MANIFEST}: it is incomplete, or was not made by Lodestar",
            hint="a run that was killed while it logged its artifact leaves such a part; train again",
        )
    return _sha256(path)


def verify(
    folder: Path, *, expected: str | None = None, ignored: frozenset[str] = frozenset()
) -> str:
    """Compare every file with the manifest, and the manifest with the run's digest, where known.

    `ignored` files are neither expected nor read.

    Raises:
        ArtifactError: naming the first file that is changed, missing, extra or a link.
    """
    digest = digest_of(folder)
    if expected is not None and digest != expected:
        raise ArtifactError(
            f"{MANIFEST} is not the one that the run recorded: it was tampered with"
        )
    listed = _listed(folder)
    found = {name: path for name, path in _files(folder) if name not in ignored}
    for name in sorted(listed.keys() - found.keys()):
        raise ArtifactError(f"the artifact is incomplete: {name} is missing")
    for name in sorted(found.keys() - listed.keys()):
        raise _tampered(f"{name} is not in its manifest")
    for name, path in sorted(found.items()):
        if _sha256(path) != listed[name]:
            raise _tampered(f"{name} is not what was recorded")
    return digest


def _listed(folder: Path) -> dict[str, str]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version, files = manifest["manifest_version"], dict(manifest["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{MANIFEST} cannot be read: it was tampered with") from error
    if version != MANIFEST_VERSION:
        raise ArtifactError(
            f"{MANIFEST} has version {version}, and this Lodestar reads {MANIFEST_VERSION}",
            hint="upgrade lodestar-ml",
        )
    return files


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file, by its path below the folder. Bytecode caches are neither listed nor ever read."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in [*folders, *names]:
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise _tampered(f"{relative} is a link")
            if name in names and not path.is_file():
                raise ArtifactError(f"the artifact was tampered with: {relative} is no plain file")
            if name in names and relative != MANIFEST:
                yield relative, path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tampered(what: str) -> ArtifactError:
    return ArtifactError(
        f"the artifact was tampered with: {what}",
        hint="nothing of it was loaded; restore it from a copy, or train again",
    )
