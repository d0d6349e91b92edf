"""What an artifact knows about itself: one JSON file of plain values, with a format version."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lodestar.artifact.lock import Lock
from lodestar.core.roles import Roles, TargetReader
from lodestar.errors import ArtifactError
from lodestar.schema import FrameSchema

__all__ = ["CONTENTS", "FORMAT_VERSION", "ArtifactContents", "Component", "read_contents"]

CONTENTS = "contents.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Component:
    """One trained part: which class it is, what handles it, and the file that holds it."""

    class_path: str
    kind: str
    file: str


@dataclass(frozen=True)
class ArtifactContents:
    """The snapshots, schemas and records of blueprint 2.4; nothing of the infrastructure."""

    recipe_name: str
    recipe_yaml_snapshot: str
    recipe_overrides: tuple[str, ...]
    loader_sql_snapshot: str | None
    loader_uri_snapshot: str | None
    loader_dialect: str
    augmenter_config_snapshot: dict[str, Any]
    model_class_path: str
    hyperparameters: dict[str, Any]
    trained_model: Component
    trained_preprocessor: Component
    roles: Roles
    target: TargetReader
    spine_schema: FrameSchema
    feature_schema: FrameSchema
    target_schema: dict[str, str]
    training_methodology: dict[str, Any]
    training_timestamp: str
    model_version: str
    data_fingerprint: dict[str, Any]
    metrics: dict[str, dict[str, float]]
    lock: Lock
    carried_modules: dict[str, str] = field(default_factory=dict)
    hyperparameter_optimization: dict[str, Any] | None = None
    format_version: int = FORMAT_VERSION

    def write(self, path: Path) -> None:
        """Write the JSON file; without a search it has no `hyperparameter_optimization`."""
        value = {item.name: getattr(self, item.name) for item in fields(self)}
        value |= {
            "trained_model": asdict(self.trained_model),
            "trained_preprocessor": asdict(self.trained_preprocessor),
            "roles": asdict(self.roles),
            "target": self.target.to_json(),
            "spine_schema": self.spine_schema.to_json(),
            "feature_schema": self.feature_schema.to_json(),
            "lock": self.lock.to_json(),
        }
        if self.hyperparameter_optimization is None:
            del value["hyperparameter_optimization"]
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def read_contents(path: Path) -> ArtifactContents:
    """Read a verified artifact's JSON file.

    Raises:
        ArtifactError: written by a format that this Lodestar does not read.
    """
    value = json.loads(path.read_text(encoding="utf-8"))
    version = value.get("format_version")
    reader = _READERS.get(version)
    if reader is None:
        raise ArtifactError(
            f"the artifact has format version {version}, and this Lodestar reads "
            f"{', '.join(map(str, _READERS))}",
            hint="upgrade lodestar-ml" if _is_newer(version) else "train again",
        )
    return reader(value)


def _is_newer(version: object) -> bool:
    return isinstance(version, int) and version > FORMAT_VERSION


def _read_version_1(value: dict[str, Any]) -> ArtifactContents:
    lists = ("inputs", "carried", "entity_keys")
    roles: dict[str, Any] = {**value["roles"]}
    roles |= {name: tuple(roles[name]) for name in lists}
    return ArtifactContents(
        **{
            **value,
            "recipe_overrides": tuple(value["recipe_overrides"]),
            "trained_model": Component(**value["trained_model"]),
            "trained_preprocessor": Component(**value["trained_preprocessor"]),
            "roles": Roles(**roles),
            "target": TargetReader.from_json(value["target"]),
            "spine_schema": FrameSchema.from_json(value["spine_schema"]),
            "feature_schema": FrameSchema.from_json(value["feature_schema"]),
            "lock": Lock.from_json(value["lock"]),
        }
    )


# One reader per format version that was ever released; they are never removed.
_READERS = {1: _read_version_1}
