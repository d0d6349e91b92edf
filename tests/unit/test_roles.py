"""Which column plays which part, and what the target says."""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from lodestar.core.results import Task
from lodestar.core.roles import Roles, TargetReader
from lodestar.errors import DataError, SchemaError

SCHEMA = pa.schema(
    [
        ("user_id", pa.int64()),
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
        ("age", pa.int64()),
        ("shop", pa.string()),
        ("note", pa.string()),
        ("grp", pa.string()),
        ("outcome", pa.int64()),
    ]
)


def roles(schema: pa.Schema = SCHEMA, **changes: Any) -> Roles:  # noqa: ANN401 -- any argument
    given: dict[str, Any] = {
        "target": "outcome",
        "treatment": "grp",
        "entity_keys": ("user_id",),
        "timestamp": "event_timestamp",
        "excluded": ("note",),
    }
    return Roles.of(schema, **{**given, **changes})


def of_target(values: list[Any]) -> tuple[pa.Table, Roles]:
    table = pa.table({"x": range(len(values)), "y": pa.array(values)})
    return table, roles(table.schema, target="y", treatment=None, entity_keys=(), excluded=())


def learned(
    values: list[Any], task: Task = "classification", positive: str | int | bool | None = None
) -> TargetReader:
    table, parts = of_target(values)
    return TargetReader.learn(table, parts, task, positive=positive, treatment_value=None)


def test_every_column_plays_one_part() -> None:
    found = roles()
    assert found.inputs == ("age", "shop")
    assert found.carried == ("user_id", "event_timestamp", "note")
    assert found.of_columns() == {
        "user_id": "key",
        "event_timestamp": "timestamp",
        "age": "feature",
        "shop": "feature",
        "note": "excluded",
        "grp": "treatment",
        "outcome": "target",
    }


def test_neither_target_nor_treatment_is_ever_a_feature() -> None:
    for excluded in ((), ("grp",), ("outcome",), ("grp", "outcome")):
        found = roles(excluded=excluded)
        assert not {"grp", "outcome"} & {*found.inputs, *found.carried}


def test_the_criterion_column_is_given_to_the_preprocessor_even_if_it_is_no_feature() -> None:
    found = roles(criterion="note")
    assert "note" in found.inputs
    assert roles(criterion="shop", excluded=()).inputs == ("age", "shop", "note")


def test_a_spine_without_event_time_is_fine() -> None:
    schema = SCHEMA.remove(1)
    found = roles(schema, excluded=("event_timestamp",))
    assert found.timestamp is None
    assert "event_timestamp" not in found.carried


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": "outcom"}, "no column 'outcom' (data_interface.target_col)"),
        ({"treatment": "group"}, "no column 'group' (data_interface.treatment_col)"),
        ({"entity_keys": ("user",)}, "no column 'user' (data_interface.entity_keys)"),
        ({"excluded": ("gone",)}, "no column 'gone' (preprocessor.params.exclude_cols)"),
        ({"criterion": "gone"}, "no column 'gone' (preprocessor.params.criterion_col)"),
    ],
)
def test_a_column_that_the_recipe_names_must_be_there(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SchemaError) as caught:
        roles(**changes)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("values", "positive", "classes"),
    [
        (["no", "yes", "no"], None, ("no", "yes")),
        (["no", "yes", "no"], "no", ("yes", "no")),
        ([2, 0, 1, 2], None, (0, 1, 2)),
        ([True, False], None, (False, True)),
        ([1, 0], 0, (1, 0)),
    ],
)
def test_classes_are_sorted_and_the_positive_one_comes_last(
    values: list[Any], positive: str | int | None, classes: tuple[Any, ...]
) -> None:
    reader = learned(values, positive=positive)
    assert reader.classes == classes
    table, parts = of_target(values)
    truth = reader.read(table, parts)
    assert [truth.classes[code] for code in truth.target] == values


@pytest.mark.parametrize(
    ("values", "positive", "words"),
    [
        (["a", "a"], None, "has 1 class ('a')"),
        (["a", None, "b"], None, "is null in 1 of 3 rows"),
        (["a", "b"], "c", "positive_class 'c' is not among"),
        ([0.5, 1.5], None, "is a double: no class labels"),
        ([datetime(2025, 1, 1, tzinfo=UTC)] * 2, None, "no class labels"),
        (pa.array([], pa.string()), None, "there are no rows"),
    ],
)
def test_a_target_that_is_no_choice_of_classes_is_refused(
    values: list[Any], positive: str | None, words: str
) -> None:
    with pytest.raises(DataError) as caught:
        learned(values, positive=positive)
    assert words in str(caught.value)


def test_a_class_that_training_never_saw_is_refused_later() -> None:
    table, parts = of_target(["a", "c"])
    with pytest.raises(DataError, match="has the class 'c', unknown to training"):
        learned(["a", "b"]).read(table, parts)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["1", "2"], "needs numbers"),
        ([1.0, float("inf")], "not finite"),
        ([1.0, float("nan")], "not finite"),
        ([1.0, None], "is null in 1 of 2 rows"),
    ],
)
def test_a_regressions_target_is_a_finite_number(values: list[Any], words: str) -> None:
    table, parts = of_target(values)
    with pytest.raises(DataError, match=words):
        learned(values, "regression").read(table, parts)


@pytest.mark.parametrize("values", [[1, 2], [1.0, 2.0], [False, True]])
def test_a_regressions_target_is_read_as_numbers(values: list[Any]) -> None:
    table, parts = of_target(values)
    assert learned(values, "regression").read(table, parts).target.tolist() == list(
        map(float, values)
    )


def causal(groups: list[Any], value: str | int) -> list[int]:
    table = pa.table({"x": [1] * len(groups), "grp": groups, "y": [0, 1] * (len(groups) // 2)})
    parts = roles(table.schema, target="y", entity_keys=(), excluded=())
    reader = TargetReader.learn(table, parts, "causal", positive=None, treatment_value=value)
    treatment = reader.read(table, parts).treatment
    assert treatment is not None
    return [int(treated) for treated in treatment]


def test_whoever_has_the_treatment_value_is_treated_and_the_rest_is_not() -> None:
    assert causal(["treatment", "control", "other", "treatment"], "treatment") == [1, 0, 0, 1]
    assert causal([1, 0, 2, 1], 1) == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("groups", "words"),
    [(["a", "a"], "has only 'a'"), (["b", "c"], "has no 'a'"), (["a", None], "is null in 1 of 2")],
)
def test_an_effect_needs_treated_and_others(groups: list[Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        causal(groups, "a")


@pytest.mark.parametrize(
    "reader",
    [
        TargetReader("classification", ("no", "yes")),
        TargetReader("classification", (1, 0)),
        TargetReader("regression"),
        TargetReader("causal", treatment_value="treatment"),
    ],
)
def test_a_target_reader_survives_json(reader: TargetReader) -> None:
    assert TargetReader.from_json(json.loads(json.dumps(reader.to_json()))) == reader
