"""A few training rows with their predictions, replayed wherever the artifact is loaded."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import feather

from lodestar.core.fitted import FittedModel
from lodestar.core.outputs import prediction_columns
from lodestar.errors import ArtifactError

__all__ = ["PROBE_ROWS", "replay", "write_probe"]

PROBE_ROWS = 5
# Another processor may add floating-point numbers in another order; logic that differs differs by more.
RELATIVE_TOLERANCE = 1e-6


def write_probe(model: FittedModel, rows: pa.Table, folder: Path) -> None:
    """Keep the rows (the model's inputs) and what the model says of them."""
    predictions = prediction_columns(model.score(rows).predictions)
    feather.write_feather(rows, folder / "probe_rows.arrow", compression="uncompressed")
    feather.write_feather(
        pa.table(predictions), folder / "probe_predictions.arrow", compression="uncompressed"
    )


def replay(model: FittedModel, folder: Path) -> int:
    """Predict the kept rows again; return how many there are.

    Raises:
        ArtifactError: a prediction is not what it was.
    """
    rows = feather.read_table(folder / "probe_rows.arrow", memory_map=False)
    recorded = feather.read_table(folder / "probe_predictions.arrow", memory_map=False)
    predicted = pa.table(prediction_columns(model.score(rows).predictions))
    for name in recorded.column_names:
        was = recorded.column(name)
        now = predicted.column(name)
        if not _same(was, now):
            raise ArtifactError(
                f"the probe failed: {name} of the recorded rows is {now.to_pylist()}, and was "
                f"{was.to_pylist()} when the model was trained",
                hint="install the versions of the artifact's requirements.txt, or train again here",
            )
    return int(rows.num_rows)


def _same(was: pa.ChunkedArray, now: pa.ChunkedArray) -> bool:
    if pa.types.is_floating(was.type):
        close = np.isclose(now.to_numpy(), was.to_numpy(), rtol=RELATIVE_TOLERANCE, atol=1e-12)
        return bool(close.all())
    return bool(was.equals(now))
