"""The sketches that an artifact carries, in a file of their own with a format version of its own."""

import json
from pathlib import Path

from lodestar.artifact.wrapper import PAYLOAD
from lodestar.core.drift.sketches import Reference
from lodestar.errors import ArtifactError

__all__ = ["SKETCHES", "SKETCH_VERSION", "read_sketches", "write_sketches"]

SKETCHES = "sketches.json"
SKETCH_VERSION = 1


def write_sketches(reference: Reference, payload: Path) -> None:
    """Write the file into an artifact's payload folder."""
    value = {"sketch_version": SKETCH_VERSION, **reference.to_json()}
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    (payload / SKETCHES).write_text(text, encoding="utf-8")


def read_sketches(folder: Path) -> Reference:
    """Read the file of a verified artifact.

    Raises:
        ArtifactError: it has none, or one of a version that this Lodestar does not read.
    """
    path = folder / PAYLOAD / SKETCHES
    if not path.is_file():
        raise ArtifactError(
            "the artifact has no sketches of its training data, and so nothing to compare with",
            hint="it was made before there were any; train again",
        )
    value = json.loads(path.read_text(encoding="utf-8"))
    version = value.get("sketch_version")
    if version != SKETCH_VERSION:
        newer = isinstance(version, int) and version > SKETCH_VERSION
        raise ArtifactError(
            f"the artifact's sketches have version {version}, and this Lodestar reads {SKETCH_VERSION}",
            where=f"{PAYLOAD}/{SKETCHES}",
            hint="upgrade lodestar-ml" if newer else "train again",
        )
    return Reference.from_json(value)
