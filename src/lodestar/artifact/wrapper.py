"""The wrapped artifact: snapshots and trained parts, run the same way by batch, API and plain MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lodestar.artifact.carried import use_carried_modules
from lodestar.artifact.components import load_model
from lodestar.artifact.contents import CONTENTS, ArtifactContents, read_contents
from lodestar.artifact.lock import compare
from lodestar.artifact.manifest import verify
from lodestar.artifact.probe import replay
from lodestar.core.augmenter import Augmenter
from lodestar.core.fitted import FittedModel, Scored
from lodestar.core.outputs import prediction_columns
from lodestar.core.results import Predictions
from lodestar.errors import ArtifactError, DataError, UsageError, choices
from lodestar.interface.learning import FeatureMatrix
from lodestar.schema import canonical, canonical_schema

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PAYLOAD", "PyfuncWrapper", "ScoredRows", "load_wrapper", "open_contents"]

PAYLOAD = "lodestar"
_PARAMS = {"run_mode": ("batch", "serving"), "return_intermediate": (False, True)}


@dataclass(frozen=True)
class ScoredRows:
    """One batch's way through the artifact."""

    augmented: pa.RecordBatch
    scored: Scored
    predictions: dict[str, pa.Array]

    @property
    def features(self) -> FeatureMatrix:
        """The preprocessed rows, made now where they were not needed before."""
        return self.scored.features

    @property
    def unknown(self) -> Mapping[str, int]:
        """Per column, how many rows have a category that training had not seen."""
        return self.scored.unknown


class PyfuncWrapper:
    """A trained model with all the logic around it, and nothing of any environment."""

    def __init__(self, contents: ArtifactContents, model: FittedModel) -> None:
        self.contents = contents
        self.trained_preprocessor = model.preprocessor
        self.trained_model = model.estimator
        self.trained_augmenter = Augmenter(
            contents.augmenter_config_snapshot.get("features", ()), contents.feature_schema
        )
        self.fitted = model

    def check(self, schema: pa.Schema, *, run_mode: str = "batch") -> None:
        """Compare the columns of rows to come with those of training.

        Raises:
            SchemaError: with every difference.
        """
        roles = self.contents.roles
        unneeded = set(self.contents.spine_schema.names) - set(roles.inputs)
        self.trained_augmenter.check(
            schema, run_mode="serving" if run_mode == "serving" else "batch"
        )
        self.contents.spine_schema.check(schema, optional=unneeded)

    def score(self, rows: pa.RecordBatch, *, first_row: int = 0) -> ScoredRows:
        """Transform and predict augmented, checked rows; `first_row` numbers them in errors.

        Raises:
            DataError: a value that training never saw the like of.
        """
        scored = self.fitted.score(self._inputs(rows, first_row))
        return ScoredRows(rows, scored, prediction_columns(scored.predictions))

    def predictions(self, rows: pa.RecordBatch, *, first_row: int = 0) -> Predictions:
        """As `score`, but the bare predictions, to be judged."""
        return self.fitted.score(self._inputs(rows, first_row)).predictions

    def _inputs(self, augmented: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
        return self.contents.feature_schema.conform(augmented, first_row=first_row)

    def predict(
        self, model_input: "pd.DataFrame", params: Mapping[str, Any] | None = None
    ) -> "pd.DataFrame | dict[str, pd.DataFrame]":
        """Predict a frame; with `return_intermediate` also return the frames on the way.

        Raises:
            UsageError: an unknown parameter, or no frame.
            DataError: no rows, or values that the model cannot take.
        """
        import pandas as pd

        asked = _checked(params or {})
        if not isinstance(model_input, pd.DataFrame):
            raise UsageError(
                f"model_input is a {type(model_input).__name__}, not a pandas DataFrame"
            )
        if model_input.empty:
            raise DataError("there are no rows to predict")
        batch = _batch_of(model_input)
        self.check(batch.schema, run_mode=asked["run_mode"])
        rows = canonical(batch, canonical_schema(batch.schema))
        scored = self.score(self.trained_augmenter.settled(rows, run_mode=asked["run_mode"]))
        predictions: pd.DataFrame = pa.table(scored.predictions).to_pandas()
        if not asked["return_intermediate"]:
            return predictions
        return {
            "predictions": predictions,
            "augmented": scored.augmented.to_pandas(),
            "preprocessed": scored.features.frame(),
        }


def open_contents(
    folder: Path, *, digest: str | None = None, ignored: frozenset[str] = frozenset()
) -> tuple[ArtifactContents, tuple[str, ...]]:
    """Verify every file, then read what the artifact knows about itself; nothing of it is run.

    Raises:
        ArtifactError: tampered with, incomplete, of another format, or for other versions.
    """
    verify(folder, expected=digest, ignored=ignored)
    path = folder / PAYLOAD / CONTENTS
    if not path.is_file():
        raise ArtifactError(
            f"the artifact has no {PAYLOAD}/{CONTENTS}: it was not made by Lodestar"
        )
    contents = read_contents(path)
    return contents, compare(contents.lock)


def load_wrapper(
    folder: Path, *, digest: str | None = None, ignored: frozenset[str] = frozenset()
) -> tuple[PyfuncWrapper, tuple[str, ...]]:
    """Verify, then load, then replay the probe; also return what differs harmlessly, in words.

    Raises:
        ArtifactError: tampered with, incomplete, of another format, or other than when trained.
    """
    contents, warnings = open_contents(folder, digest=digest, ignored=ignored)
    payload = folder / PAYLOAD
    use_carried_modules(folder / "code", contents.carried_modules)
    model = load_model(contents, payload / "components")
    replay(model, payload)
    return PyfuncWrapper(contents, model), warnings


def _batch_of(frame: "pd.DataFrame") -> pa.RecordBatch:
    """One batch, although pandas keeps the text columns of a large file in several chunks."""
    table = pa.Table.from_pandas(frame, preserve_index=False).combine_chunks()
    arrays = [column.chunk(0) for column in table.columns]
    return pa.record_batch(arrays, schema=table.schema.remove_metadata())


def _checked(params: Mapping[str, Any]) -> dict[str, Any]:
    asked: dict[str, Any] = {"run_mode": "batch", "return_intermediate": False, **params}
    for name, value in asked.items():
        if name not in _PARAMS:
            raise UsageError(f"there is no parameter {name!r}", hint=choices(name, list(_PARAMS)))
        if value not in _PARAMS[name]:
            valid = ", ".join(map(repr, _PARAMS[name]))
            raise UsageError(f"{name} cannot be {value!r}", hint=f"valid: {valid}")
    return asked
