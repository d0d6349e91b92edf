"""The config: where things run and what an environment allows. It never names a feature."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from lodestar.settings.alerts import Alerts
from lodestar.settings.execution import Execution
from lodestar.settings.feature_store import FeatureStore
from lodestar.settings.monitoring import Drift, Labels, PerformanceMonitoring
from lodestar.settings.section import EnvText, Name, Names, Section, Whole, as_tuple
from lodestar.settings.serving import Serving
from lodestar.settings.stores import GCS, S3, Azure
from lodestar.settings.tracing import Tracing
from lodestar.settings.warehouses import BigQuery, Snowflake

__all__ = [
    "Batch",
    "Config",
    "Data",
    "Environment",
    "HyperparameterTuning",
    "MlflowTracking",
    "ModelPolicy",
    "Output",
    "Parallelization",
    "Postgres",
    "Pruning",
]


class Environment(Section):
    """What this environment can do; the Factory reads it, nothing else asks for names."""

    augmenter: Literal["pass_through", "feature_store"]
    serving: Literal["blocked", "allowed"]


class Postgres(Section):
    """A PostgreSQL server: `postgresql://user:password@host:port/database`; timeouts in seconds.

    The server lists our sessions as `application_name` and what they are for.
    """

    uri: SecretStr
    statement_timeout: Whole = Field(default=300, ge=1)
    connect_timeout: Whole = Field(default=10, ge=1, le=15)
    application_name: Name = "lodestar"


def _hidden(value: object) -> object:
    """Nobody here knows which of a foreign adapter's values are secret: those of variables may be."""
    if isinstance(value, EnvText):
        return SecretStr(str(value))
    if isinstance(value, dict):
        return {name: _hidden(one) for name, one in value.items()}
    return [_hidden(one) for one in value] if isinstance(value, list) else value


class Data(Section):
    """Where the loader's SQL runs: files below `root`, a server, a warehouse; and the object stores.

    `options` is for adapters that other packages add, by the name of the scheme or engine. What comes
    from a variable is a `SecretStr` in it.
    """

    adapter: Name
    root: Name
    snapshots: Name
    postgres: Postgres | None = None
    snowflake: Snowflake | None = None
    bigquery: BigQuery | None = None
    s3: S3 = S3()
    gcs: GCS = GCS()
    azure: Azure = Azure()
    options: Annotated[dict[Name, dict[Name, Any]], BeforeValidator(_hidden)] = Field(default={})


class MlflowTracking(Section):
    """Runs and artifacts. Relative paths are below the project; the URI may carry a password.

    Artifacts of a remote store are kept in `cache_root`, the `cached_artifacts` most recently used.
    """

    experiment_name: Name
    tracking_uri: SecretStr
    artifact_root: Name
    cache_root: Name = ".lodestar/artifacts"
    cached_artifacts: Whole = Field(default=10, ge=1)


class ModelPolicy(Section):
    """Module prefixes that a recipe's class paths may be imported from; `*` is any."""

    allowed_modules: Names


class Output(Section):
    """Where batch scoring writes, below the project, and which frames besides the predictions."""

    root: Name
    save: Annotated[
        tuple[Literal["predictions", "augmented", "preprocessed"], ...], BeforeValidator(as_tuple)
    ] = ("predictions",)

    @field_validator("save")
    @classmethod
    def _predictions_are_the_point(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "predictions" not in value:
            raise ValueError("save must contain predictions")
        return value


class Batch(Section):
    """How many rows are held at a time while scoring, and how trees are asked.

    `part_rows` is about how many a worker takes at once, and how many are kept at once, where a batch
    can be resumed; it is rounded to whole chunks. With `native` boosted trees are compiled, where
    that is possible and llvmlite is installed; what is predicted is the same, bit by bit.
    """

    chunk_rows: Whole = Field(default=32_768, ge=1)
    part_rows: Whole = Field(default=262_144, ge=1)
    native: bool = True


class Pruning(Section):
    """Which trials are ended early; steps are percent of a trial's own rounds."""

    enabled: bool = True
    algorithm: Literal[
        "LearningCurvePruner", "MedianPruner", "HyperbandPruner", "WilcoxonPruner"
    ] = "LearningCurvePruner"
    n_startup_trials: Whole = Field(default=2, ge=0)
    n_warmup_steps: Whole = Field(default=0, ge=0, le=100)


class Parallelization(Section):
    """How many trials run side by side: 1 is a thread, more are processes, -1 one per core."""

    n_jobs: Whole = Field(default=1, ge=-1)

    @field_validator("n_jobs")
    @classmethod
    def _some_job(cls, value: int) -> int:
        if value == 0:
            raise ValueError("n_jobs is 1 or more, or -1 for one per core")
        return value


class HyperparameterTuning(Section):
    """What the machine allows for a search; the recipe says what the experiment is worth.

    `timeout` (seconds) bounds trials and finalists together. `storage` is a directory below the
    project, or a database URL, which may carry a password. `log_trials`: MLflow gets a run for each
    trial, nested in the training's. `drafts`: whether trials may be fitted on a share of their rows
    where whole ones would not fit into the time.
    """

    enabled: bool = False
    engine: Literal["optuna"] = "optuna"
    timeout: Whole = Field(default=1800, ge=1)
    sampler: Literal["TPESampler", "RandomSampler", "QMCSampler"] = "TPESampler"
    pruning: Pruning = Pruning()
    parallelization: Parallelization = Parallelization()
    storage: SecretStr = SecretStr(".lodestar/studies")
    log_trials: bool = False
    drafts: Literal["auto", "never"] = "auto"


class Config(Section):
    """One environment, after its file was laid over base.yaml."""

    environment: Environment
    data: Data
    mlflow: MlflowTracking
    model: ModelPolicy
    output: Output
    batch: Batch = Batch()
    execution: Execution = Execution()
    hyperparameter_tuning: HyperparameterTuning = HyperparameterTuning()
    feature_store: FeatureStore | None = None
    serving: Serving = Serving()
    performance_monitoring: PerformanceMonitoring = PerformanceMonitoring()
    drift: Drift = Drift()
    labels: Labels = Labels()
    alerts: Alerts = Alerts()
    tracing: Tracing = Tracing()

    @model_validator(mode="after")
    def _a_feature_store_is_declared(self) -> "Config":
        if self.environment.augmenter == "feature_store" and self.feature_store is None:
            raise ValueError(
                "environment.augmenter is feature_store, so the section feature_store is needed"
            )
        return self
