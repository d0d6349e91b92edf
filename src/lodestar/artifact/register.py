"""Which run left which artifact, as small files beside a local store.

Scoring and verifying need no more than this, and are spared importing MLflow (1.8 s and 90 MB).
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["OpenedRun", "Register"]


@dataclass(frozen=True)
class OpenedRun:
    """A run and a local copy of its artifact, not yet verified."""

    run_id: str
    run_name: str
    digest: str
    folder: Path


class Register:
    """One file per finished run, written when its artifact is complete."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def add(self, run: OpenedRun) -> None:
        """Write the run's file, all at once."""
        self._root.mkdir(parents=True, exist_ok=True)
        path = self._root / f"{run.run_id}.json"
        aside = path.with_suffix(f".{os.getpid()}.tmp")
        aside.write_text(json.dumps({**asdict(run), "folder": str(run.folder)}), encoding="utf-8")
        aside.replace(path)

    def find(self, reference: str) -> OpenedRun | None:
        """The one run whose id or digest begins so; None where it takes MLflow to tell."""
        found = [
            run
            for run in self._runs()
            if run.run_id.startswith(reference) or run.digest.startswith(reference)
        ]
        return found[0] if len(found) == 1 and found[0].folder.is_dir() else None

    def _runs(self) -> list[OpenedRun]:
        runs = []
        for path in self._root.glob("*.json"):
            value = json.loads(path.read_text(encoding="utf-8"))
            runs.append(OpenedRun(**{**value, "folder": Path(value["folder"])}))
        return runs
