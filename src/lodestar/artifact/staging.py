"""Everything of a finished training that MLflow is to be given, in one folder.

Only MLflow gives out the ids of run and model, and the artifact names them. So a staged artifact bears
ids of our own, which are written over when it is published: its digest changes then, and the final one
is that of what was logged.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lodestar.artifact.manifest import MANIFEST, verify
from lodestar.artifact.packaging import ModelIdentity, stamp
from lodestar.errors import ArtifactError

__all__ = ["RunRecord", "StagedRun", "read_staged", "stage"]

_RUN = "run.json"
_MODEL = "model"
_REPORT = "report.html"


@dataclass(frozen=True)
class RunRecord:
    """What a run is called and what it recorded; `log_trials`: and a run nested in it per trial."""

    name: str
    recipe: str
    task: str
    class_path: str
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    tags: Mapping[str, str] = field(default_factory=dict)
    log_trials: bool = False


@dataclass(frozen=True)
class StagedRun:
    """A training on its way into an environment's store. `started` is in ms since 1970.

    `pending_id` is unique and stays: as a tag of the run it tells, after whatever has happened, whether
    there is one already.
    """

    folder: Path
    environment: str
    pending_id: str
    digest: str
    started: int
    record: RunRecord

    def stamped(self, target: Path, identity: ModelIdentity) -> str:
        """Copy the artifact to `target`, bearing the ids of run and model; return its digest.

        Raises:
            ArtifactError: the staged artifact is not what it was.
        """
        source = self.folder / _MODEL
        verify(source, expected=self.digest)
        shutil.copytree(source, target, copy_function=_linked)
        for name in ("MLmodel", MANIFEST):  # written over, and the staged ones stay as they are
            (target / name).unlink()
            shutil.copyfile(source / name, target / name)
        return stamp(target, identity)

    def report(self, run_id: str, digest: str) -> str:
        """The page, naming the run and the artifact as they were published."""
        text = (self.folder / _REPORT).read_text(encoding="utf-8")
        return text.replace(self.pending_id, run_id).replace(self.digest, digest)


def stage(
    folder: Path,
    environment: str,
    record: RunRecord,
    *,
    package: Callable[[Path, ModelIdentity], str],
    report: Callable[[str, str], str],
) -> StagedRun:
    """Write all of it to an empty folder.

    `package(folder, identity)` writes the model directory and returns its digest;
    `report(run_id, digest)` returns the page.
    """
    pending_id = uuid.uuid4().hex
    digest = package(folder / _MODEL, ModelIdentity(pending_id, f"m-{pending_id}"))
    (folder / _REPORT).write_text(report(pending_id, digest), encoding="utf-8")
    staged = StagedRun(folder, environment, pending_id, digest, int(time.time() * 1000), record)
    values = {**asdict(staged), "folder": None}
    (folder / _RUN).write_text(json.dumps(values, indent=1), encoding="utf-8")
    return staged


def read_staged(folder: Path) -> StagedRun:
    """Read what `stage` wrote.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        value = json.loads((folder / _RUN).read_text(encoding="utf-8"))
        return StagedRun(**{**value, "folder": folder, "record": RunRecord(**value["record"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{folder / _RUN} cannot be read: the kept training was damaged",
            hint="train again, and remove the folder",
        ) from error


def _linked(source: str, target: str) -> None:
    """A second name for the same file where the file system has that, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
