"""Turns raw columns into numbers: `simple_scaler`, or any transformer by class path."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lodestar.errors import DataError, SchemaError
from lodestar.interface.learning import FeatureMatrix

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Categorical",
    "Numeric",
    "SimpleScaler",
    "TransformerPreprocessor",
    "plain_numbers",
]

FloatArray = NDArray[np.float64]
OTHER, NULL = "(other)", "(null)"
# Rare categories are remembered, to be told from unknown ones, up to this many per column.
MOST_REMEMBERED = 10_000
# More groups than this need two rows each on average to be scaled by themselves.
MOST_GROUPS = 10


@dataclass
class Numeric:
    """Mean and standard deviation per group of rows; the last group is all rows together."""

    name: str
    mean: FloatArray
    scale: FloatArray
    width: ClassVar[int] = 1

    def scale_into(
        self, out: NDArray[Any], values: pa.Array, group: NDArray[np.signedinteger[Any]] | None
    ) -> None:
        """Scale; `group` says which row of the moments each value takes (None: all the last one).

        Raises:
            DataError: a value is too large.
        """
        numbers = plain_numbers(values)
        mean = self.mean[-1] if group is None else self.mean[group]
        scale = self.scale[-1] if group is None else self.scale[group]
        try:
            with np.errstate(over="raise"):
                scaled = (numbers - mean) / scale
                # The mean of the scaled column is 0, so that is what a missing value becomes.
                missing = np.isnan(scaled)
                if missing.any():
                    scaled[missing] = 0.0
                out[:] = scaled
        except FloatingPointError as error:
            raise DataError(
                f"column {self.name!r} has a value that is too large to be scaled as {out.dtype}",
                hint="filter or clip it in the SQL",
            ) from error


@dataclass
class Categorical:
    """The categories that get a column of their own, the frequent first, and those that do not."""

    name: str
    categories: list[str]
    rare: list[str]

    @property
    def width(self) -> int:
        """One column for each category, one for nulls, one for all others."""
        return len(self.categories) + 2

    @cached_property
    def known(self) -> pa.Array:
        """All values that training saw."""
        return pa.array([*self.categories, *self.rare], pa.string())

    @cached_property
    def places(self) -> NDArray[np.unsignedinteger[Any]]:
        """Which column is 1 for each of the known ones, and at the end for an unknown one."""
        other = self.width - 1
        places = np.full(len(self.known) + 1, other, np.min_scalar_type(other))
        places[: len(self.categories)] = np.arange(len(self.categories))
        return places

    def codes(self, values: pa.Array) -> tuple[NDArray[np.unsignedinteger[Any]], int]:
        """Which column is 1 in each row, and how many rows hold what training had not seen."""
        if pa.types.is_dictionary(values.type):
            values = values.cast(pa.string())
        found = _positions(values, self.known)
        codes = self.places[found]
        unknown = int(np.count_nonzero(found < 0))
        if values.null_count:
            codes[values.is_null().to_numpy(zero_copy_only=False)] = self.width - 2
        return codes, unknown - values.null_count


@dataclass
class SimpleScaler:
    """Scales numbers and encodes categories.

    Numeric columns: the mean for missing values, then (x - mean) / standard deviation.
    Categorical columns: one 0/1 column per category, one for nulls and one for all others.
    With `criterion_col`, mean and deviation are those of the rows with the same value there, and
    the global ones for values that training had not seen. At most `max_categories` categories get a
    column of their own; the rarer ones share "(other)" with the unknown ones.
    """

    criterion_col: str | None = None
    exclude_cols: tuple[str, ...] = ()
    max_categories: int = 64
    groups: list[str] = field(default_factory=list)
    columns: list[Numeric | Categorical] = field(default_factory=list)

    def fit(self, table: pa.Table, target: NDArray[Any]) -> None:
        """Learn means, deviations and categories from training rows."""
        del target
        names = [name for name in table.column_names if name not in self.exclude_cols]
        if not names:
            raise SchemaError(
                "no feature is left after exclude_cols", hint="exclude fewer columns in the recipe"
            )
        self.groups, group = self._group(table)
        self.columns = [self._learn(name, table.column(name), group) for name in names]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that come out, in order."""
        out: list[str] = []
        for column in self.columns:
            if isinstance(column, Numeric):
                out.append(column.name)
            else:
                labels = [*column.categories, NULL, OTHER]
                out.extend(f"{column.name}={label}" for label in labels)
        return tuple(out)

    @property
    def sources(self) -> tuple[str, ...]:
        """The raw column behind each one that comes out, in order."""
        out: list[str] = []
        for column in self.columns:
            out += [column.name] * column.width
        return tuple(out)

    def transform(
        self, rows: pa.Table | pa.RecordBatch, *, dtype: type[np.floating[Any]] = np.float64
    ) -> FeatureMatrix:
        """Scale and encode; one C-ordered (n, p) array, no value missing."""
        out = np.zeros((rows.num_rows, len(self.names)), dtype=dtype)
        unknown: dict[str, int] = {}
        group = self._known_group(rows)
        position = 0
        for column in self.columns:
            values = rows.column(column.name)
            if isinstance(column, Numeric):
                column.scale_into(out[:, position], values, group)
            else:
                codes, count = column.codes(values)
                out[np.arange(len(codes)), position + codes.astype(np.intp)] = 1.0
                if count:
                    unknown[column.name] = count
            position += column.width
        return FeatureMatrix(out, self.names, unknown)

    def _learn(
        self, name: str, values: pa.ChunkedArray, group: NDArray[np.signedinteger[Any]]
    ) -> Numeric | Categorical:
        kind = values.type
        if pa.types.is_string(kind):
            return self._learn_categories(name, values)
        if pa.types.is_temporal(kind):
            raise SchemaError(
                f"column {name!r} is a {kind} and no feature as it is",
                hint="list it in preprocessor.params.exclude_cols, or derive numbers from it in SQL",
            )
        numbers = plain_numbers(values)
        present = ~np.isnan(numbers)
        if not present.any():
            raise DataError(
                f"column {name!r} has no value at all in the training rows",
                hint="list it in preprocessor.params.exclude_cols, or fill it in the SQL",
            )
        total = _mean_and_scale(numbers[present])
        known = [
            _mean_and_scale(rows) if rows.size else total
            for rows in (numbers[present & (group == at)] for at in range(len(self.groups)))
        ]
        moments = np.array([*known, total])
        return Numeric(name, mean=moments[:, 0].copy(), scale=moments[:, 1].copy())

    def _learn_categories(self, name: str, values: pa.ChunkedArray) -> Categorical:
        counts = pc.value_counts(values.drop_null())
        pairs = [(item["values"].as_py(), item["counts"].as_py()) for item in counts]
        if not pairs:
            raise DataError(
                f"column {name!r} has no value at all in the training rows",
                hint="list it in preprocessor.params.exclude_cols, or fill it in the SQL",
            )
        pairs.sort(key=lambda pair: (-pair[1], pair[0]))
        labels = [label for label, _ in pairs[:MOST_REMEMBERED]]
        return Categorical(name, labels[: self.max_categories], labels[self.max_categories :])

    def _group(self, table: pa.Table) -> tuple[list[str], NDArray[np.signedinteger[Any]]]:
        if self.criterion_col is None:
            return [], np.full(table.num_rows, -1)
        texts = self._criterion(table)
        groups = sorted(pc.unique(texts.drop_null()).to_pylist())
        if len(groups) > max(MOST_GROUPS, table.num_rows // 2):
            raise DataError(
                f"criterion_col {self.criterion_col!r} has {len(groups):,} values in "
                f"{table.num_rows:,} rows: too few rows each to scale by",
                hint="choose a column with few values, or criterion_col: null",
            )
        return groups, _positions(texts, pa.array(groups, pa.string()))

    def _known_group(self, rows: pa.Table | pa.RecordBatch) -> NDArray[np.int32] | None:
        """Which row of the moments each row takes; None: all take the global one."""
        if self.criterion_col is None:
            return None
        return _positions(self._criterion(rows), pa.array(self.groups, pa.string()))

    def _criterion(self, rows: pa.Table | pa.RecordBatch) -> Any:  # noqa: ANN401 -- Arrow array
        return rows.column(self.criterion_col).cast(pa.string())

    def to_json(self) -> dict[str, Any]:
        """Everything it learned as plain values; numbers come back bit for bit."""
        return {
            "criterion_col": self.criterion_col,
            "exclude_cols": list(self.exclude_cols),
            "max_categories": self.max_categories,
            "groups": self.groups,
            "columns": [
                {"name": column.name, "mean": column.mean.tolist(), "scale": column.scale.tolist()}
                if isinstance(column, Numeric)
                else {"name": column.name, "categories": column.categories, "rare": column.rare}
                for column in self.columns
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "SimpleScaler":
        """Read what `to_json` wrote."""
        columns: list[Numeric | Categorical] = [
            Categorical(item["name"], item["categories"], item["rare"])
            if "categories" in item
            else Numeric(item["name"], np.array(item["mean"]), np.array(item["scale"]))
            for item in value["columns"]
        ]
        return cls(
            criterion_col=value["criterion_col"],
            exclude_cols=tuple(value["exclude_cols"]),
            max_categories=value["max_categories"],
            groups=list(value["groups"]),
            columns=columns,
        )


@dataclass
class TransformerPreprocessor:
    """Any transformer with pandas `fit` and `transform`, such as scikit-learn's."""

    transformer: Any

    @classmethod
    def of(cls, kind: type, params: Mapping[str, Any]) -> "TransformerPreprocessor":
        """Make the transformer anew."""
        return cls(kind(**params))

    def fit(self, table: pa.Table, target: NDArray[Any]) -> None:
        """Fit on training rows as a pandas frame."""
        self.transformer.fit(self._frame(table), target)

    def transform(
        self, rows: pa.Table | pa.RecordBatch, *, dtype: type[np.floating[Any]] = np.float64
    ) -> FeatureMatrix:
        """Transform as a pandas frame; what comes out is kept as it is, made dense if sparse."""
        del dtype  # the transformer chooses
        frame = self._frame(rows)
        made = self.transformer.transform(frame)
        if hasattr(made, "toarray"):
            made = made.toarray()
        import pandas as pd

        if isinstance(made, pd.DataFrame):
            return FeatureMatrix(made, tuple(map(str, made.columns)))
        values = np.asarray(made)
        if values.ndim != 2 or len(values) != len(frame):  # noqa: PLR2004 -- a matrix has two sides
            raise DataError(
                f"{type(self.transformer).__name__}.transform returned the shape {values.shape}, not "
                f"({len(frame)}, features)",
                hint="a preprocessor returns one row of features for each row it is given",
            )
        return FeatureMatrix(values, self._names(values.shape[1]))

    def _frame(self, rows: pa.Table | pa.RecordBatch) -> "pd.DataFrame":
        frame: pd.DataFrame = rows.to_pandas()
        return frame

    def _names(self, count: int) -> tuple[str, ...]:
        name_features = getattr(self.transformer, "get_feature_names_out", None)
        if name_features is None:
            return tuple(f"f{position}" for position in range(count))
        return tuple(map(str, name_features()))


def plain_numbers(values: Any) -> FloatArray:  # noqa: ANN401 -- Arrow array or chunked array
    """The numbers of a column; NaN where there is none."""
    if not pa.types.is_floating(values.type):
        # Whole numbers beyond 2^53 are rounded, as in any computation with floats.
        values = values.cast(pa.float64(), safe=False)
    if isinstance(values, pa.ChunkedArray):
        return np.asarray(values.to_numpy())
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _mean_and_scale(numbers: FloatArray) -> tuple[float, float]:
    mean, scale = float(numbers.mean()), float(numbers.std())
    # A constant column's deviation is rounding error, by which nothing may be divided; the bound
    # is scikit-learn's (StandardScaler, _is_constant_feature).
    error = numbers.size * np.finfo(np.float64).eps * abs(mean)
    return mean, scale if scale > error else 1.0


def _positions(values: Any, known: pa.Array) -> NDArray[np.int32]:  # noqa: ANN401 -- Arrow array
    """Where each value stands among the known ones; -1 where it does not."""
    found = pc.index_in(values, value_set=known).fill_null(-1)
    if isinstance(found, pa.ChunkedArray):
        return np.asarray(found.to_numpy())
    return np.asarray(found.to_numpy(zero_copy_only=False))
