"""Which run left which artifact, as small files beside the artifacts.

Scoring, verifying and serving need no more than this, and are spared importing MLflow (1.8 s and 90 MB).
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["OpenedRun", "Register"]

_ALIASES = "aliases"


@dataclass(frozen=True)
class OpenedRun:
    """A run and a local copy of its artifact, not yet loaded. `notes` is what the user should know."""

    run_id: str
    run_name: str
    digest: str
    folder: Path
    notes: tuple[str, ...] = ()


class Register:
    """One file per finished run, written when its artifact is complete; one per alias last seen."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, run: OpenedRun) -> None:
        """Write the run's file, all at once."""
        _write(
            self._root / f"{run.run_id}.json",
            {
                "run_id": run.run_id,
                "run_name": run.run_name,
                "digest": run.digest,
                "folder": str(run.folder),
            },
        )

    def run(self, run_id: str) -> OpenedRun | None:
        """The run of this whole id; None where it is unknown, or its folder gone."""
        return _read(self._root / f"{run_id}.json")

    def find(self, reference: str) -> OpenedRun | None:
        """The one run whose id or digest begins so; None where it takes MLflow to tell."""
        found = [
            run
            for run in self._runs()
            if run.run_id.startswith(reference) or run.digest.startswith(reference)
        ]
        return found[0] if len(found) == 1 and found[0].folder.is_dir() else None

    def remember(self, alias: str, run_id: str) -> None:
        """Write down which run an alias means now."""
        path = self._root / _ALIASES / f"{alias}.json"
        if _values(path) != {"run_id": run_id}:
            _write(path, {"run_id": run_id})

    def remembered(self, alias: str) -> OpenedRun | None:
        """The run that an alias meant when it was last asked for."""
        value = _values(self._root / _ALIASES / f"{alias}.json")
        return None if value is None else self.run(str(value.get("run_id")))

    def forget_missing(self) -> None:
        """Remove the files of runs whose folders are gone."""
        for path in self._root.glob("*.json"):
            value = _values(path)
            if value is None or not Path(str(value.get("folder"))).is_dir():
                path.unlink(missing_ok=True)

    def _runs(self) -> Iterator[OpenedRun]:
        for path in self._root.glob("*.json"):
            run = _read(path, gone=True)
            if run is not None:
                yield run


def _read(path: Path, *, gone: bool = False) -> OpenedRun | None:
    value = _values(path)
    if value is None:
        return None
    try:
        run = OpenedRun(value["run_id"], value["run_name"], value["digest"], Path(value["folder"]))
    except (KeyError, TypeError):
        return None
    return run if gone or run.folder.is_dir() else None


def _values(path: Path) -> dict[str, Any] | None:
    """A file's values; None where it cannot be read: the register is never the only way."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _write(path: Path, values: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        aside.write_text(json.dumps(values), encoding="utf-8")
        aside.replace(path)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
