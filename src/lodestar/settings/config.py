"""The config: where things run and what an environment allows. It never names a feature."""

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from lodestar.settings.recipe import Name, Section

__all__ = [
    "Batch",
    "Config",
    "Data",
    "EnvText",
    "Environment",
    "HyperparameterTuning",
    "MlflowTracking",
    "ModelPolicy",
    "Output",
]


class EnvText(str):
    """A value that came from an environment variable: text, unless its field is numeric."""

    __slots__ = ()


def _whole_number(value: object) -> object:
    return int(value) if isinstance(value, EnvText) else value


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Whole = Annotated[int, BeforeValidator(_whole_number)]


class Environment(Section):
    """What this environment can do; the Factory reads it, nothing else asks for names."""

    augmenter: Literal["pass_through", "feature_store"]
    serving: Literal["blocked", "allowed"]


class Data(Section):
    """Where the loader's SQL finds its tables: each table name is a file below `root`."""

    adapter: Name
    root: Name
    snapshots: Name


class MlflowTracking(Section):
    """Runs and artifacts. Relative paths are below the project."""

    experiment_name: Name
    tracking_uri: Name
    artifact_root: Name


class ModelPolicy(Section):
    """Module prefixes that a recipe's class paths may be imported from; `*` is any."""

    allowed_modules: Annotated[tuple[Name, ...], BeforeValidator(_as_tuple)]


class Output(Section):
    """Where batch scoring writes, below the project, and which frames besides the predictions."""

    root: Name
    save: Annotated[
        tuple[Literal["predictions", "augmented", "preprocessed"], ...], BeforeValidator(_as_tuple)
    ] = ("predictions",)

    @field_validator("save")
    @classmethod
    def _predictions_are_the_point(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "predictions" not in value:
            raise ValueError("save must contain predictions")
        return value


class Batch(Section):
    """How many rows are held at a time while scoring."""

    chunk_rows: Whole = Field(default=65_536, ge=1)


class HyperparameterTuning(Section):
    """What the machine allows for a search; the recipe says what the experiment is worth."""

    enabled: bool = False


class Config(Section):
    """One environment, after its file was laid over base.yaml."""

    environment: Environment
    data: Data
    mlflow: MlflowTracking
    model: ModelPolicy
    output: Output
    batch: Batch = Batch()
    hyperparameter_tuning: HyperparameterTuning = HyperparameterTuning()


def below(project: str, path: str) -> PurePosixPath:
    """Join a config's path to the project; absolute paths stay as they are."""
    return PurePosixPath(project) / path
