"""Which column plays which part, and what a table's target says."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestar.core.results import Task, Truth
from lodestar.errors import DataError
from lodestar.schema import require_columns

__all__ = ["Roles", "TargetReader"]

FEWEST_CLASSES = 2
Label: TypeAlias = str | int | bool


@dataclass(frozen=True)
class Roles:
    """The parts that a table's columns play.

    `inputs` are what the preprocessor is given; `carried` are keys, the event timestamp and excluded
    columns: no features, but they go with the predictions, so that a row can be told from another.
    """

    inputs: tuple[str, ...]
    carried: tuple[str, ...]
    target: str
    treatment: str | None
    entity_keys: tuple[str, ...]
    timestamp: str | None

    @classmethod
    def of(
        cls,
        schema: pa.Schema,
        *,
        target: str,
        treatment: str | None,
        entity_keys: tuple[str, ...],
        timestamp: str,
        excluded: Iterable[str] = (),
        criterion: str | None = None,
    ) -> "Roles":
        """Give every column its part.

        Raises:
            SchemaError: a column that the recipe names is not there.
        """
        required = [(target, "data_interface.target_col")]
        required += [(treatment, "data_interface.treatment_col")] if treatment else []
        required += [(key, "data_interface.entity_keys") for key in entity_keys]
        required += [(criterion, "preprocessor.params.criterion_col")] if criterion else []
        leave_out = set(excluded)
        required += [
            (name, "preprocessor.params.exclude_cols") for name in leave_out if name != timestamp
        ]
        require_columns(schema, required)
        judged = {target, treatment}
        no_feature = leave_out | set(entity_keys) | {timestamp}
        return cls(
            inputs=tuple(
                name
                for name in schema.names
                if name == criterion or (name not in judged and name not in no_feature)
            ),
            carried=tuple(
                name for name in schema.names if name in no_feature and name not in judged
            ),
            target=target,
            treatment=treatment,
            entity_keys=entity_keys,
            timestamp=timestamp if timestamp in schema.names else None,
        )

    def of_columns(self) -> dict[str, str]:
        """Column → what it is, for people to read."""
        parts = dict.fromkeys(self.inputs, "feature")
        parts |= dict.fromkeys(self.carried, "excluded")
        parts |= dict.fromkeys(self.entity_keys, "key")
        parts[self.target] = "target"
        if self.treatment:
            parts[self.treatment] = "treatment"
        if self.timestamp:
            parts[self.timestamp] = "timestamp"
        return parts


@dataclass(frozen=True)
class TargetReader:
    """Reads targets the same way in training and in later evaluations."""

    task: Task
    classes: tuple[Any, ...] = ()
    treatment_value: Any = None

    @classmethod
    def learn(
        cls,
        table: pa.Table,
        roles: Roles,
        task: Task,
        *,
        positive: Label | None,
        treatment_value: Label | None,
    ) -> "TargetReader":
        """Find the classes of a classification's training data; `positive` comes last of two.

        Raises:
            DataError: fewer than two classes, a null target, or no such positive class.
        """
        if task != "classification":
            return cls(task, treatment_value=treatment_value)
        column = table.column(roles.target)
        _no_nulls(column, roles.target)
        if pa.types.is_floating(column.type) or pa.types.is_temporal(column.type):
            raise DataError(
                f"the target {roles.target!r} is a {column.type}: no class labels",
                hint="cast it to an integer or text in the SQL, or use task_type: regression",
            )
        classes = sorted(pc.unique(column).to_pylist())
        if len(classes) < FEWEST_CLASSES:
            seen = ", ".join(map(repr, classes)) or "nothing"
            raise DataError(
                f"the target {roles.target!r} has {len(classes)} class ({seen}); learning needs two",
                hint="check the loader's filter and its context parameters",
            )
        if positive is not None:
            if positive not in classes:
                raise DataError(
                    f"data_interface.positive_class {positive!r} is not among the target's values",
                    hint=f"valid: {', '.join(map(repr, classes[:12]))}",
                )
            classes.sort(key=lambda label: label == positive)
        return cls(task, tuple(classes))

    def read(self, table: pa.Table, roles: Roles) -> Truth:
        """The target of each row.

        Raises:
            DataError: a null, a class that training had not, no number where one is needed, or only
                one of treated and control.
        """
        column = table.column(roles.target)
        _no_nulls(column, roles.target)
        if self.task == "classification":
            positions = {label: position for position, label in enumerate(self.classes)}
            try:
                codes = [positions[label] for label in column.to_pylist()]
            except KeyError as error:
                raise DataError(
                    f"the target {roles.target!r} has the class {error.args[0]!r}, unknown to training",
                    hint=f"valid: {', '.join(map(repr, self.classes[:12]))}",
                ) from error
            return Truth(np.array(codes, dtype=np.int64), classes=self.classes)
        if not (
            pa.types.is_integer(column.type)
            or pa.types.is_floating(column.type)
            or pa.types.is_boolean(column.type)
        ):
            raise DataError(
                f"the target {roles.target!r} is a {column.type}, and {self.task} needs numbers",
                hint="cast it in the SQL",
            )
        target = column.cast(pa.float64()).to_numpy()
        if not np.isfinite(target).all():
            raise DataError(f"the target {roles.target!r} has values that are not finite")
        if self.task == "regression":
            return Truth(target)
        return Truth(target, treatment=self._treatment(table, roles))

    def _treatment(self, table: pa.Table, roles: Roles) -> Any:  # noqa: ANN401 -- int array
        name = roles.treatment or ""
        column = table.column(name)
        _no_nulls(column, name)
        values = column.to_pylist()
        treated = np.fromiter(
            (value == self.treatment_value for value in values), np.int64, len(values)
        )
        if treated.min() == treated.max():
            seen = sorted({str(value) for value in values})[:12]
            raise DataError(
                f"the treatment column {name!r} has {'only' if treated.any() else 'no'} "
                f"{self.treatment_value!r}",
                hint=f"treatment_value must be one of several values; here: {', '.join(seen)}",
            )
        return treated

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "task": self.task,
            "classes": list(self.classes),
            "treatment_value": self.treatment_value,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TargetReader":
        """Read what `to_json` wrote."""
        return cls(value["task"], tuple(value["classes"]), value["treatment_value"])


def _no_nulls(column: pa.ChunkedArray, name: str) -> None:
    if len(column) == 0:
        raise DataError("there are no rows", hint="check the loader's filter and its parameters")
    if column.null_count:
        raise DataError(
            f"column {name!r} is null in {column.null_count:,} of {len(column):,} rows",
            hint="leave those rows out in the SQL",
        )
