"""Lays an artifact out as an MLflow model: payload, carried code, requirements, manifest last."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from ruamel.yaml import YAML

import lodestar
from lodestar.artifact.contents import CONTENTS, ArtifactContents
from lodestar.artifact.lock import Lock
from lodestar.artifact.manifest import write_manifest
from lodestar.artifact.probe import PROBE_ROWS, write_probe
from lodestar.artifact.sketches import write_sketches
from lodestar.artifact.wrapper import PAYLOAD
from lodestar.core.drift.sketches import Reference
from lodestar.core.fitted import FittedModel
from lodestar.schema import FrameSchema

__all__ = ["KeptRows", "ModelIdentity", "package", "stamp"]

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


@dataclass(frozen=True)
class KeptRows:
    """What an artifact keeps of the training rows: a few for the probe, and sketches of all."""

    probe: pa.Table
    reference: Reference


def package(
    folder: Path,
    *,
    identity: ModelIdentity,
    contents: ArtifactContents,
    model: FittedModel,
    components: Path,
    rows: KeptRows,
    modules: Mapping[str, Path],
) -> str:
    """Write the whole model directory to `folder`; return its digest."""
    _save_mlflow_model(folder, identity, contents, modules)
    payload = folder / PAYLOAD
    shutil.copytree(components, payload / "components")
    contents.write(payload / CONTENTS)
    write_probe(model, rows.probe.slice(0, PROBE_ROWS), payload)
    write_sketches(rows.reference, payload)
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
    """What `mlflow.pyfunc.save_model` writes for a model from code, without all that it looks up.

    It would compare each pinned requirement with everything that is installed, which takes longer than
    many a training; and it would add the lock file of whatever project the caller stands in.
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    source = Path(lodestar.__file__).parent
    code = folder / "code"
    _carry_lodestar(source, code / "lodestar")
    _carry_project(modules, contents.carried_modules, code)
    for cache in code.rglob("__pycache__"):
        shutil.rmtree(cache)
    shutil.copyfile(source / "artifact" / "entry.py", folder / "entry.py")
    model = Model(
        artifact_path="model",
        run_id=identity.run_id,
        model_id=identity.model_id,
        model_uuid=identity.model_id,
        signature=_signature(contents),
    )
    mlflow.pyfunc.add_to_model(
        model,
        loader_module="mlflow.pyfunc.loaders.code_model",
        code=code.name,
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        streamable=False,
        model_code_path="entry.py",
    )
    _write_requirements(folder, contents.lock)
    model.save(str(folder / "MLmodel"))


def _write_requirements(folder: Path, lock: Lock) -> None:
    """The lock, as pip, MLflow's virtualenv and conda read it."""
    pins = lock.requirements()
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={lock.python}", "pip", {"pip": pins}],
    }
    virtualenv = {
        "python": lock.python,
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }
    (folder / "requirements.txt").write_text("\n".join(pins), encoding="utf-8")
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    for name, value in (("conda.yaml", conda), ("python_env.yaml", virtualenv)):
        yaml.dump(value, folder / name)


def _carry_lodestar(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
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
