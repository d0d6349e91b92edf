"""Ports to what learns: preprocessors and models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd  # a served model needs no frames, and pandas takes 0.5 s and 40 MB

__all__ = ["FeatureMatrix", "Preprocessor"]


@dataclass(frozen=True)
class FeatureMatrix:
    """Preprocessed features of n rows: a dense (n, p) array, or the frame a transformer made.

    `unknown` counts, per column, the rows whose category training had not seen.
    """

    data: NDArray[Any] | pd.DataFrame
    names: tuple[str, ...]
    unknown: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.data)

    def frame(self) -> pd.DataFrame:
        """The features with their names; shares memory with an array."""
        if not isinstance(self.data, np.ndarray):
            return self.data
        import pandas as pd

        return pd.DataFrame(self.data, columns=list(self.names), copy=False)

    def rows(self, positions: NDArray[np.int64]) -> NDArray[Any] | pd.DataFrame:
        """Some of the rows."""
        if not isinstance(self.data, np.ndarray):
            return self.data.iloc[positions]
        taken: NDArray[Any] = self.data[positions]
        return taken

    def array(self) -> NDArray[Any]:
        """The features as numbers, row after row."""
        if not isinstance(self.data, np.ndarray):
            return self.data.to_numpy()
        return self.data


class Preprocessor(Protocol):
    """Learns from one split's training rows and transforms any others, row by row.

    `transform` of a row does not depend on the other rows that it comes with; the given table is
    never changed. Columns come by name; others than those it was fitted on are ignored.
    """

    def fit(self, table: pa.Table, target: NDArray[Any]) -> None:
        """Learn from training rows (features only) and their target (n,)."""
        ...

    def transform(
        self, rows: pa.Table | pa.RecordBatch, *, dtype: type[np.floating[Any]]
    ) -> FeatureMatrix:
        """Turn rows into features; numbers are computed in float64, then stored as `dtype`."""
        ...
