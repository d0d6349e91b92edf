"""Files by one URI: a file, a folder of them, or a pattern that means several."""

from pathlib import Path

from lodestar.adapters.files.errors import translated
from lodestar.adapters.files.folder import MANIFEST, among, listed
from lodestar.adapters.files.formats import SUFFIXES
from lodestar.adapters.files.patterns import fixed_part, is_pattern, matching
from lodestar.adapters.files.rows import FileReader, path_of
from lodestar.adapters.files.several import SeveralReader, members_of
from lodestar.adapters.registry import scheme_of
from lodestar.errors import DataError
from lodestar.interface.data import SpineReader
from lodestar.settings.config import Data

__all__ = ["reader"]


def reader(data: Data, project: Path, uri: str) -> SpineReader:
    """Read a `file:` URI or a path; relative ones are below the project.

    Raises:
        DataError: there is no such file, or those that are meant cannot be read as one.
    """
    path = path_of(uri, project)
    # What stands before the project's own folders is no pattern, whatever signs are in it.
    base = Path("/") if path.as_posix() == uri or scheme_of(uri) else project
    asked = path.relative_to(base).as_posix()
    if path.is_dir():
        return _several(base, f"{asked}/")
    if is_pattern(asked) and not path.is_file():
        return _several(base, asked)
    return FileReader.from_config(data, project, uri)


def _several(base: Path, pattern: str) -> SeveralReader:
    below = len(fixed_part(pattern))
    root = base / pattern[:below]
    if not root.is_dir():
        raise DataError(f"there is no folder {root}", hint="see the pattern for a misspelling")
    with translated(root):
        names = [path.relative_to(base).as_posix() for path in root.rglob("*") if path.is_file()]
        manifest = root / MANIFEST
        content = manifest.read_bytes() if manifest.is_file() else None
    if content is not None:
        names = among(names, pattern[:below], listed(content, str(manifest)))
    found = matching(pattern, names, suffixes=SUFFIXES)
    for name in found:
        if not (base / name).resolve().is_relative_to(root.resolve()):
            raise DataError(
                f"{name} is a link that leads out of {root}", hint="put the file itself there"
            )
    return SeveralReader(members_of({name: FileReader(base / name) for name in found}, below))
