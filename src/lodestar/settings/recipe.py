"""The recipe: what to learn, from which rows, and how to judge it. It never names a host."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from lodestar.settings.section import Name, Names, Section, as_tuple
from lodestar.settings.selection import FeatureSelection

__all__ = [
    "Augmenter",
    "DataInterface",
    "FeatureSelection",
    "Finalists",
    "HyperparameterRange",
    "HyperparameterTuning",
    "Loader",
    "Model",
    "Preprocessor",
    "Recipe",
    "SimpleScaler",
    "SimpleScalerParams",
    "Split",
    "Transformer",
]

ClassPath = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
Share = Annotated[float, Field(gt=0, lt=1)]
SqlDialect = Literal["postgres", "duckdb", "bigquery", "snowflake"]


class HyperparameterRange(Section):
    """A searched hyperparameter. Without a search, `default` is taken, else the estimator's own."""

    type: Literal["float", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = Field(default=None, gt=0)
    choices: Annotated[tuple[Any, ...] | None, BeforeValidator(as_tuple)] = None
    default: Any = None

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> "HyperparameterRange":
        if self.type == "categorical":
            if not self.choices:
                raise ValueError("a categorical range needs a non-empty list of choices")
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("a categorical range takes choices, not low, high, log or step")
            return self
        if self.choices is not None:
            raise ValueError(f"choices belong to a categorical range, not to type {self.type}")
        if self.low is None or self.high is None:
            raise ValueError(f"a range of type {self.type} needs low and high")
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low above 0, not {self.low:g}")
        if self.log and self.step is not None:
            raise ValueError("a log range takes no step")
        if self.type == "int" and any(
            v is not None and v != int(v) for v in (self.low, self.high, self.step)
        ):
            raise ValueError("a range of type int needs whole numbers")
        return self

    @model_validator(mode="after")
    def _default_lies_within(self) -> "HyperparameterRange":
        if self.default is None:
            return self
        if self.choices is not None:
            if self.default not in self.choices:
                raise ValueError("the default must be one of the choices")
        elif not self._holds(self.default):
            raise ValueError(f"the default must be a number from {self.low:g} to {self.high:g}")
        return self

    def _holds(self, value: object) -> bool:
        """Whether a value is of the range's type and within its bounds."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.type == "int" and value != int(value):
            return False
        return (self.low or 0.0) <= value <= (self.high or 0.0)


_RANGE_KEYS = {"type", "low", "high", "log", "step", "choices"}


def _kind(value: object) -> str:
    """A mapping with a range's keys is a range; anything else is a fixed value."""
    if isinstance(value, HyperparameterRange):
        return "range"
    return "range" if isinstance(value, dict) and _RANGE_KEYS & value.keys() else "fixed"


Hyperparameter = Annotated[
    Annotated[HyperparameterRange, Tag("range")] | Annotated[Any, Tag("fixed")],
    Discriminator(_kind),
]


class Model(Section):
    """Any importable class with pandas `fit` and `predict`."""

    class_path: ClassPath
    hyperparameters: dict[Name, Hyperparameter] = Field(default_factory=dict)


class Finalists(Section):
    """How many of the best trials are judged again, and on how many common splits."""

    candidates: int = Field(default=8, ge=1)
    splits: int = Field(default=10, ge=1)


class HyperparameterTuning(Section):
    """What the experiment is worth; the config says what the machine allows.

    `n_trials` is the total, also over a search that was resumed. Without a `metric` the task's usual
    one is taken. `on_timeout`: what to do when not one trial ended in time. With
    `early_stopping_rounds` a trial of a boosting model ends after so many rounds without a better
    metric on its validation rows, and the model gets the number of rounds that was best.
    """

    enabled: bool = False
    n_trials: int = Field(default=50, ge=1)
    metric: Name | None = None
    direction: Literal["maximize", "minimize"] | None = None
    finalists: Finalists = Finalists()
    on_timeout: Literal["error", "defaults"] = "error"
    early_stopping_rounds: int | None = Field(default=None, ge=1)


class Loader(Section):
    """Where the spine comes from: a SQL file of the project, or a data URI.

    SQL is written in `dialect` and transpiled to the engine that runs it.
    """

    source_uri: Name
    dialect: SqlDialect = "postgres"


class Augmenter(Section):
    """Features to add to the spine; `pass_through` adds none in any environment."""

    type: Literal["feature_store", "pass_through"] = "pass_through"
    features: Annotated[tuple[FeatureSelection, ...], BeforeValidator(as_tuple)] = ()

    @model_validator(mode="after")
    def _features_need_a_store(self) -> "Augmenter":
        if self.type == "pass_through" and self.features:
            raise ValueError("features are listed, so type must be feature_store")
        if self.type == "feature_store" and not self.features:
            raise ValueError("type feature_store needs a non-empty list of features")
        return self


class SimpleScalerParams(Section):
    """Which column forms groups that are scaled by themselves, and which are no features."""

    criterion_col: Name | None = None
    exclude_cols: Names = ()
    max_categories: int = Field(default=64, ge=1)


class SimpleScaler(Section):
    """The built-in preprocessor."""

    name: Literal["simple_scaler"]
    params: SimpleScalerParams = SimpleScalerParams()


class Transformer(Section):
    """Any transformer with pandas `fit` and `transform`; `params` go to its constructor."""

    class_path: ClassPath
    params: dict[str, Any] = Field(default_factory=dict)


def _preprocessor_kind(value: object) -> str:
    has_class_path = (
        "class_path" in value if isinstance(value, dict) else isinstance(value, Transformer)
    )
    return "transformer" if has_class_path else "built-in"


Preprocessor = Annotated[
    Annotated[SimpleScaler, Tag("built-in")] | Annotated[Transformer, Tag("transformer")],
    Discriminator(_preprocessor_kind),
]


class DataInterface(Section):
    """Which column plays which part.

    `entity_keys` and `event_timestamp_col` are carried into the predictions and are no features.
    """

    task_type: Literal["classification", "regression", "causal"]
    target_col: Name
    treatment_col: Name | None = None
    treatment_value: str | int | bool | None = None
    positive_class: str | int | bool | None = None
    entity_keys: Names = ()
    event_timestamp_col: Name = "event_timestamp"

    @model_validator(mode="after")
    def _treatment_goes_with_causal(self) -> "DataInterface":
        causal = self.task_type == "causal"
        if causal and (self.treatment_col is None or self.treatment_value is None):
            raise ValueError("task_type causal needs treatment_col and treatment_value")
        if not causal and (self.treatment_col is not None or self.treatment_value is not None):
            raise ValueError("treatment_col and treatment_value belong to task_type causal")
        if self.positive_class is not None and self.task_type != "classification":
            raise ValueError("positive_class belongs to task_type classification")
        return self


class Split(Section):
    """How rows are set aside. `auto`: stratified for classification and causal, random for regression.

    `group` keeps the rows of one `group_col` value together; `time` puts the latest rows in the test
    set, leaving out those less than `gap_seconds` before its first.
    """

    method: Literal["auto", "random", "stratified", "group", "time"] = "auto"
    test_size: Share = 0.2
    validation_size: Share = 0.25
    group_col: Name | None = None
    gap_seconds: float = Field(default=0.0, ge=0)
    seed: int = Field(default=42, ge=0)

    @model_validator(mode="after")
    def _group_needs_its_column(self) -> "Split":
        if (self.method == "group") != (self.group_col is not None):
            raise ValueError("method group and group_col go together")
        if self.gap_seconds and self.method != "time":
            raise ValueError("gap_seconds belongs to method time")
        return self


class Recipe(Section):
    """One model's whole logic."""

    model: Model
    loader: Loader
    data_interface: DataInterface
    preprocessor: Preprocessor = SimpleScaler(name="simple_scaler")
    augmenter: Augmenter = Augmenter()
    hyperparameter_tuning: HyperparameterTuning = HyperparameterTuning()
    split: Split = Split()
