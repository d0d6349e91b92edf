"""Scored parts in a folder until all of a batch are there: each whole or not at all, each known again.

`part-00012.json` is written last. It names the run and the artifact, the digest of the rows that were
scored, and that of every file of the part, so that nothing is taken for a part that is none.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from lodestar.adapters.files.errors import translated
from lodestar.adapters.files.rows import sync_directory
from lodestar.interface.parts import Batches, ScoredPart

__all__ = ["KeptPart", "PartFiles"]

ABOUT = "batch.json"


@dataclass(frozen=True)
class KeptPart:
    """What a part's manifest says; `files` has the digest of each frame's file, `watched` the counts.

    `written` has, per frame, the file that lies where the results go, in place of one here.
    """

    number: int
    rows: int
    input: str
    files: Mapping[str, str]
    unknown: Mapping[str, int]
    filled: Mapping[str, int]
    watched: Mapping[str, Any] | None
    written: Mapping[str, Mapping[str, Any]]


class PartFiles:
    """The parts of one batch. `about` is what makes it that batch and no other: plain values."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._folder = folder
        self._about = dict(about)
        self._kept: dict[int, KeptPart] = {}

    def start(self, *, resume: bool) -> int:
        """Take up what is there, or remove it; returns how many parts are there already."""
        with translated(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            if not resume:
                for path in self._folder.iterdir():
                    path.unlink()
            self._write(self._folder / ABOUT, _text(self._about))
            for path in sorted(self._folder.glob("part-*.json")):
                part = self._whole(path)
                if part is not None:
                    self._kept[part.number] = part
        return len(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, number: int) -> bool:
        return number in self._kept

    def __getitem__(self, number: int) -> KeptPart:
        return self._kept[number]

    def add(self, part: ScoredPart) -> None:
        """Write a part, its manifest last."""
        files = {}
        with translated(self._folder / ABOUT):
            for name, batches in part.frames.items():
                stream = batches.encoded()
                self._write(self._file(part.number, name), stream)
                files[name] = hashlib.sha256(stream).hexdigest()
            kept = KeptPart(
                part.number,
                part.rows,
                part.digest,
                files,
                dict(part.unknown),
                dict(part.filled),
                None if part.watched is None else part.watched.counted(),
                {name: asdict(file) for name, file in part.written.items()},
            )
            self._write(self._manifest(part.number), _text({**self._about, **vars(kept)}))
            sync_directory(self._folder)
        self._kept[part.number] = kept

    def drop(self, number: int) -> None:
        """Keep a part no longer; its manifest goes first."""
        with translated(self._folder / ABOUT):
            self._manifest(number).unlink(missing_ok=True)
            for name in self._kept.pop(number).files:
                self._file(number, name).unlink(missing_ok=True)

    def read(self, number: int) -> Iterator[dict[str, pa.RecordBatch]]:
        """A part's batches, by the names of their frames."""
        with translated(self._folder / ABOUT):
            names = list(self._kept[number].files)
            streams = [
                Batches.decoded(pa.memory_map(str(self._file(number, name)))) for name in names
            ]
        for frames in zip(*streams, strict=True):
            yield dict(zip(names, frames, strict=True))

    def remove(self) -> None:
        """Remove the parts, which nobody needs once their rows are published."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _whole(self, manifest: Path) -> KeptPart | None:
        """A part as its manifest describes it; None where it is not, or of another batch."""
        try:
            said = json.loads(manifest.read_text(encoding="utf-8"))
            part = KeptPart(**{name: said.pop(name) for name in KeptPart.__dataclass_fields__})
            digests = {name: _digest(self._file(part.number, name)) for name in part.files}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # half of one, from somebody who was killed: it is scored again
        ours = json.loads(_text(self._about))
        return part if said == ours and digests == part.files else None

    def _manifest(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.json"

    def _file(self, number: int, name: str) -> Path:
        return self._folder / f"part-{number:05d}.{name}.arrows"

    @staticmethod
    def _write(path: Path, content: Any) -> None:  # noqa: ANN401 -- bytes, or an Arrow buffer
        aside = path.with_name(f".{path.name}.tmp")
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)


def _text(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True).encode()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
