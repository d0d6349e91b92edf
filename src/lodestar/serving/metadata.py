"""What a served model is, in plain values: for people, dashboards and clients that introspect."""

from typing import Any

from lodestar.serving.version import ServedVersion

__all__ = ["described_version"]

TUNING = ("enabled", "engine", "best_params", "best_score", "total_trials", "pruned_trials")


def described_version(version: ServedVersion, role: str) -> dict[str, Any]:
    """One version: identity, what it predicts, how well, from what, and how it is computed here."""
    contents = version.contents
    tuning = contents.hyperparameter_optimization
    return {
        "role": role,
        "run_id": version.run.run_id,
        "run_name": version.run.run_name,
        "artifact_digest": version.run.digest,
        "recipe": contents.recipe_name,
        "model_class_path": contents.model_class_path,
        "trained_at": contents.training_timestamp,
        "task": contents.target.task,
        "target": {**contents.target_schema, "classes": list(contents.target.classes)},
        "metrics": contents.metrics,
        "hyperparameters": contents.hyperparameters,
        "tuning": {name: tuning.get(name) for name in TUNING} if tuning else {"enabled": False},
        "request": _fields(version),
        "features": _features(version),
        "scoring": {"way": version.scorer.name, "why_not_faster": version.scorer.reason or None},
        "drift": _drift(version),
        "format_version": contents.format_version,
    }


def _drift(version: ServedVersion) -> dict[str, Any]:
    """What this worker's last window came to, if it watches and one is over."""
    windows = version.drift
    last = None if windows is None else windows.last
    return {"watched": windows is not None, "last_window": None if last is None else last.plain()}


def _fields(version: ServedVersion) -> list[dict[str, Any]]:
    return [
        {
            "name": field.name,
            "type": field.column.type,
            "required": field.required,
            "nullable": field.nullable,
            "entity_key": field.key,
        }
        for field in version.request.fields
    ]


def _features(version: ServedVersion) -> list[dict[str, Any]]:
    """The model's inputs, and which namespace each is looked up in."""
    namespaces = {
        name: item["feature_namespace"]
        for item in version.contents.augmenter_config_snapshot.get("features", ())
        for name in item["features"]
    }
    return [
        {
            "name": column.name,
            "type": column.type,
            "nullable": column.nullable,
            "namespace": namespaces.get(column.name),
        }
        for column in version.contents.feature_schema.columns
    ]
