"""Lays an artifact out as an MLflow model: payload, carried code, requirements, manifest last."""

import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

import lodestar
from lodestar.artifact.contents import CONTENTS, ArtifactContents
from lodestar.artifact.manifest import write_manifest
from lodestar.artifact.probe import PROBE_ROWS, write_probe
from lodestar.artifact.wrapper import PAYLOAD
from lodestar.core.fitted import FittedModel
from lodestar.schema import FrameSchema

__all__ = ["ModelIdentity", "package", "stamp"]

# The parts of Lodestar that predicting needs; the others stay at home.
_CARRIED = ("__init__.py", "errors.py", "schema.py", "artifact", "core", "interface")
_CARRIED_OF_ARTIFACT = {
    "__init__.py",
    "carried.py",
    "components.py",
    "contents.py",
    "lock.py",
    "manifest.py",
    "probe.py",
    "wrapper.py",
}
_MLFLOW_TYPES = {
    "bool": "boolean",
    "int": "long",
    "float": "double",
    "string": "string",
    "date": "datetime",
    "timestamp": "datetime",
}


@dataclass(frozen=True)
class ModelIdentity:
    """What MLflow knows the model by."""

    run_id: str
    model_id: str


def package(
    folder: Path,
    *,
    identity: ModelIdentity,
    contents: ArtifactContents,
    model: FittedModel,
    components: Path,
    probe_rows: pa.Table,
    modules: Mapping[str, Path],
) -> str:
    """Write the whole model directory to `folder`; return its digest."""
    _save_mlflow_model(folder, identity, contents, modules)
    payload = folder / PAYLOAD
    shutil.copytree(components, payload / "components")
    contents.write(payload / CONTENTS)
    write_probe(model, probe_rows.slice(0, PROBE_ROWS), payload)
    return write_manifest(folder)


def stamp(folder: Path, identity: ModelIdentity) -> str:
    """Write other ids of run and model into a packaged model; return its digest, which they change."""
    from mlflow.models import Model

    description = folder / "MLmodel"
    model = Model.load(str(description))
    model.run_id = identity.run_id
    model.model_id = model.model_uuid = identity.model_id
    model.save(str(description))
    return write_manifest(folder)


def _save_mlflow_model(
    folder: Path, identity: ModelIdentity, contents: ArtifactContents, modules: Mapping[str, Path]
) -> None:
    import mlflow.pyfunc
    from mlflow.models import Model

    source = Path(lodestar.__file__).parent
    with TemporaryDirectory() as scratch:
        carried = Path(scratch)
        _carry_lodestar(source, carried / "lodestar")
        _carry_project(modules, contents.carried_modules, carried)
        model = Model(
            artifact_path="model",
            run_id=identity.run_id,
            model_id=identity.model_id,
            model_uuid=identity.model_id,
        )
        with warnings.catch_warnings():
            # The probe is our input example; MLflow would also run the model on its own.
            warnings.filterwarnings("ignore", message=".*An input example was not provided")
            mlflow.pyfunc.save_model(
                folder,
                python_model=str(source / "artifact" / "entry.py"),
                code_paths=[str(path) for path in sorted(carried.iterdir())],
                pip_requirements=contents.lock.requirements(),
                signature=_signature(contents),
                mlflow_model=model,
            )
    # MLflow notes where on this machine the file came from; an artifact knows no machine.
    model.flavors["python_function"]["model_code_path"] = "entry.py"
    model.save(str(folder / "MLmodel"))
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache)


def _carry_lodestar(source: Path, target: Path) -> None:
    target.mkdir()
    for name in _CARRIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=_not_carried)
        else:
            shutil.copyfile(source / name, target / name)


def _not_carried(folder: str, names: Sequence[str]) -> set[str]:
    if Path(folder).name == "artifact":
        return set(names) - _CARRIED_OF_ARTIFACT
    return {"__pycache__"} & set(names)


def _carry_project(modules: Mapping[str, Path], places: Mapping[str, str], target: Path) -> None:
    for name, file in modules.items():
        place = target / places[name]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def _signature(contents: ArtifactContents) -> object:
    """Inputs for people and for MLflow's own checks, and the two parameters that predict takes."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    def columns(schema: FrameSchema, *, required: bool) -> list[ColSpec]:
        return [
            ColSpec(
                _MLFLOW_TYPES[column.type], column.name, required=required and not column.nullable
            )
            for column in schema.columns
        ]

    carried = contents.spine_schema.select(contents.roles.carried)
    params = ParamSchema(
        [
            ParamSpec("run_mode", "string", "batch"),
            ParamSpec("return_intermediate", "boolean", default=False),
        ]
    )
    inputs: list[Any] = [
        *columns(contents.feature_schema, required=True),
        *columns(carried, required=False),
    ]
    return ModelSignature(inputs=Schema(inputs), params=params)
