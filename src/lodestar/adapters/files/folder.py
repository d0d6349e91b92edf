"""A folder of part files, written by whoever scored them, and a manifest that says which count.

`_manifest.json` is written last. A reader of the folder reads the files that it names, in its order, and
no others: those of a batch that is under way, or was killed, are as good as not there.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from lodestar.adapters.registry import WRITERS, adapter, scheme_of
from lodestar.errors import DataError, UsageError
from lodestar.interface.data import FrameSink
from lodestar.interface.parts import WrittenFile
from lodestar.settings.loading import ConfigPlace

__all__ = ["MANIFEST", "KeepsNotes", "PartFolder", "among", "listed"]

MANIFEST = "_manifest.json"
FORMAT = 1


@runtime_checkable
class KeepsNotes(Protocol):
    """A writer that can also put, get and remove whole small files."""

    def sink(self, destination: str, schema: pa.Schema) -> FrameSink:
        """As every writer does."""
        ...

    def put(self, destination: str, content: bytes) -> None:
        """Write it whole, in place of what is there."""
        ...

    def get(self, destination: str) -> bytes | None:
        """What is there; None where nothing is."""
        ...

    def has(self, destination: str) -> bool:
        """Whether there is such a file."""
        ...

    def remove(self, destination: str) -> None:
        """Remove it, where it is there."""
        ...


@dataclass(frozen=True)
class PartFolder:
    """Where the parts of one batch go: `uri` ends with a slash, `mark` is in the names of its files.

    It can be pickled, and holds no secret: whoever writes connects by the config at `place`.
    """

    uri: str
    mark: str
    place: ConfigPlace

    def write(self, number: int, batches: Sequence[pa.RecordBatch]) -> WrittenFile:
        """Write a part; the same part again replaces its file.

        Raises:
            ExternalError: it cannot be written.
        """
        name = f"part-{number:05d}-{self.mark}.parquet"
        with self._writer().sink(f"{self.uri}{name}", batches[0].schema) as sink:
            for batch in batches:
                sink.write(batch)
        return WrittenFile(name, sum(batch.num_rows for batch in batches))

    def publish(self, files: Iterable[WrittenFile], about: Mapping[str, Any]) -> None:
        """List the files as what the folder holds from now on; those that it held before go."""
        writer, place = self._writer(), f"{self.uri}{MANIFEST}"
        before = writer.get(place)
        there = list(files)
        said = {
            "format": FORMAT,
            **about,
            "rows": sum(file.rows for file in there),
            "files": [asdict(file) for file in there],
        }
        writer.put(place, json.dumps(said, indent=1).encode())
        names = {file.name for file in there}
        for name in listed(before, place) if before is not None else ():
            if name not in names:
                writer.remove(f"{self.uri}{name}")

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return self._writer().has(f"{self.uri}{name}")

    def about(self) -> Mapping[str, Any] | None:
        """What the manifest that is there says; None where there is none."""
        content = self._writer().get(f"{self.uri}{MANIFEST}")
        return None if content is None else _said(content, self.uri)

    def _writer(self) -> KeepsNotes:
        data = self.place.read(os.environ).config.data
        made = adapter(WRITERS, scheme_of(self.uri), what="the URI scheme")
        writer = made(data, self.place.project)
        if not isinstance(writer, KeepsNotes):
            raise UsageError(
                f"no folder of files can be written to {self.uri}",
                hint="name one file, or a folder of files or of an object store",
            )
        return writer


def listed(content: bytes, where: str) -> list[str]:
    """The names of the files that a manifest lists, in its order.

    Raises:
        DataError: it is no manifest of ours, or of a later version.
    """
    said = _said(content, where)
    names = [str(file["name"]) for file in said["files"]]
    if any("/" in name or name.startswith((".", "_")) for name in names):
        raise DataError(f"{where} names files that are not beside it", hint="see who wrote it")
    return names


def among(names: Iterable[str], folder: str, wanted: Sequence[str]) -> list[str]:
    """Of the names below a folder, those that its manifest lists.

    Raises:
        DataError: one is listed and not there.
    """
    there = set(names)
    found = [f"{folder}{name}" for name in wanted]
    gone = [name for name in found if name not in there]
    if gone:
        raise DataError(
            f"{folder}{MANIFEST} lists {gone[0]}, which is not there",
            hint=f"{len(gone)} of {len(found)} files are gone: score the batch again",
        )
    return found


def _said(content: bytes, where: str) -> dict[str, Any]:
    try:
        said = json.loads(content)
        known = said["format"] == FORMAT and isinstance(said["files"], list)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise DataError(
            f"{where} is no manifest that this version reads",
            hint="a later version of Lodestar may have written it, or something else has",
        )
    found: dict[str, Any] = said
    return found
