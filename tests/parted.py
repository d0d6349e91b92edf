"""Projects whose config says where rows lie, for parts that are read as a worker would read them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lodestar.settings.loading import ConfigPlace

__all__ = ["place_of_project"]

BASE: Mapping[str, Any] = {
    "environment": {"augmenter": "pass_through", "serving": "blocked"},
    "data": {"adapter": "duckdb", "root": "data", "snapshots": "data/snapshots"},
    "mlflow": {
        "experiment_name": "x",
        "tracking_uri": "sqlite:///mlruns/mlflow.db",
        "artifact_root": "mlruns/artifacts",
    },
    "model": {"allowed_modules": ["*"]},
    "output": {"root": "outputs"},
}


def place_of_project(folder: Path, data: Mapping[str, object] | None = None) -> ConfigPlace:
    """Make a project with these sections of `data` in its config."""
    (folder / "config").mkdir(parents=True)
    (folder / "data").mkdir()
    config = {**BASE, "data": {**BASE["data"], **(data or {})}}
    (folder / "config/base.yaml").write_text(json.dumps(config), encoding="utf-8")
    return ConfigPlace(folder, "local")
