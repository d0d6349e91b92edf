"""Labels and predictions as the numbers that metrics take: class positions, values, 1 where treated."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestar.core.results import Predictions, Truth
from lodestar.core.roles import TargetReader
from lodestar.errors import SchemaError

__all__ = ["Codes"]

PREDICTION, TARGET, TREATMENT = "prediction", "target", "treatment"
UNKNOWN = -1
# Floats below are whole numbers without doubt; the other is no class of anybody's.
EXACT, NO_CLASS = 2.0**53, -(2.0**62)


@dataclass(frozen=True)
class Codes:
    """Translates the columns of one artifact's task.

    Coded columns: `prediction` and `target`, a class position or a value; `treatment` 1 or 0 (causal);
    `probability_0` … per class where there are any.
    """

    target: TargetReader

    @property
    def classes(self) -> pa.Array:
        """The classes of training, in the order of their positions."""
        return pa.array(self.target.classes)

    @property
    def shares(self) -> tuple[str, ...]:
        """The columns of probabilities, as `batch-inference` and the log call them."""
        return tuple(f"probability_{label}" for label in self.target.classes)

    def check(self, field: pa.Field, what: str) -> None:
        """See that a column can be a target of this task.

        Raises:
            SchemaError: text where numbers are needed, or another type than the classes have.
        """
        given, task = field.type, self.target.task
        numeric = pa.types.is_integer(given) or pa.types.is_floating(given)
        boolean = pa.types.is_boolean(given)
        if task != "classification":
            if not (numeric or boolean):
                raise SchemaError(
                    f"{what} {field.name!r} is a {given}, and {task} needs numbers",
                    hint="cast it to a number where the labels come from",
                )
            return
        known = self.classes.type
        same = given == known or (numeric and pa.types.is_integer(known))
        if not (same or pa.types.is_null(given)):
            named = ", ".join(map(repr, self.target.classes[:12]))
            raise SchemaError(
                f"{what} {field.name!r} is a {given}, and the classes of training are {known}: {named}",
                hint="give labels the values that training had",
            )

    def coded(self, column: pa.Array) -> pa.Array:
        """Values or class positions; `UNKNOWN` for a class that training had not, null for no value."""
        if self.target.task != "classification":
            return _finite(column.cast(pa.float64()))
        given = column
        if pa.types.is_floating(given.type):  # whole numbers that came beside nulls
            given = _finite(given)
            whole = pc.and_(pc.equal(pc.floor(given), given), pc.less(pc.abs(given), EXACT))
            given = pc.if_else(whole, given, NO_CLASS)
        found = pc.index_in(given.cast(self.classes.type), value_set=self.classes)
        return pc.if_else(given.is_valid(), found.fill_null(UNKNOWN), pa.scalar(None, pa.int32()))

    def treated(self, column: pa.Array) -> pa.Array:
        """1 where the value is the treatment's, 0 where another, null where none.

        Raises:
            SchemaError: the column is of another type than the treatment's value.
        """
        value = self.target.treatment_value
        try:
            wanted = pa.scalar(value).cast(column.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SchemaError(
                f"the treatment is a {column.type} in the labels, and training's was {value!r}",
                hint="cast it where the labels come from",
            ) from error
        return pc.equal(column, wanted).cast(pa.int32())

    def read(self, table: pa.Table) -> tuple[Truth, Predictions]:
        """Coded rows without nulls as truth and predictions."""
        classes = self.target.classes
        names = [name for name in self.coded_shares if name in table.schema.names]
        shares = [table.column(name).to_numpy() for name in names]
        probabilities = np.column_stack(shares).astype(np.float64) if shares else None
        if probabilities is not None and np.isnan(probabilities).any():
            probabilities = None  # the estimator has none
        treatment = None
        if self.target.task == "causal":
            treatment = table.column(TREATMENT).to_numpy().astype(np.int64)
        truth = Truth(table.column(TARGET).to_numpy(), treatment, classes)
        return truth, Predictions(table.column(PREDICTION).to_numpy(), probabilities, classes)

    @property
    def coded_shares(self) -> tuple[str, ...]:
        """The coded columns of probabilities, in the order of `shares`."""
        return tuple(f"probability_{place}" for place in range(len(self.target.classes)))


def _finite(column: pa.Array) -> pa.Array:
    """NaN and the infinities are no values."""
    return pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
