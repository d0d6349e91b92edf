import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from lodestar.core.leakage import inspect
from lodestar.core.results import LeakageFinding, Task
from lodestar.core.splitter import Method, Split

ROWS = 1_000
FEATURES = ["a", "b", "colour"]


def a_frame(rows: int = ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "member": [f"m{i}" for i in range(rows)],
            "at": pd.date_range("2025-01-01", periods=rows, freq="h", tz="UTC"),
            "a": rng.normal(size=rows),
            "b": rng.normal(size=rows),
            "colour": rng.choice(["red", "green", "blue"], rows),
        }
    )


def a_split(method: Method = "random", rows: int = ROWS) -> Split:
    order = np.random.default_rng(1).permutation(rows)
    return Split(np.sort(order[rows // 5 :]), np.sort(order[: rows // 5]), method)


def a_target(classes: int = 2, rows: int = ROWS) -> NDArray[np.int64]:
    return np.random.default_rng(2).integers(0, classes, rows)


def found(
    frame: pd.DataFrame,
    target: NDArray[np.generic] | None = None,
    *,
    task: Task = "classification",
    features: list[str] | None = None,
    method: Method = "random",
) -> tuple[LeakageFinding, ...]:
    return inspect(
        frame,
        a_split(method, len(frame)),
        feature_cols=features or FEATURES,
        target=a_target(rows=len(frame)) if target is None else target,
        task=task,
        entity_keys=["member"],
        timestamp_col="at",
    )


def test_sound_rows_raise_no_suspicion() -> None:
    assert found(a_frame()) == ()
    assert found(a_frame(), np.random.default_rng(3).normal(size=ROWS), task="regression") == ()


def test_test_rows_that_stand_in_train_are_counted() -> None:
    frame, target, split = a_frame(), a_target(), a_split()
    frame.loc[split.test[:7], FEATURES] = frame.loc[split.train[:7], FEATURES].to_numpy()
    target[split.test[:7]] = target[split.train[:7]]
    (finding,) = found(frame, target)
    assert finding.name == "duplicate_rows"
    assert finding.rows == 7
    assert "7 of 200 test rows" in finding.what


def test_equal_features_with_another_target_are_no_duplicate() -> None:
    frame, target, split = a_frame(), a_target(), a_split()
    frame.loc[split.test[:7], FEATURES] = frame.loc[split.train[:7], FEATURES].to_numpy()
    target[split.test[:7]] = 1 - target[split.train[:7]]
    assert found(frame, target) == ()


def test_entities_in_both_parts_are_counted() -> None:
    frame, split = a_frame(), a_split()
    frame.loc[split.test[:6], "member"] = ["m1000000"] * 6
    frame.loc[split.train[0], "member"] = "m1000000"
    (finding,) = found(frame)
    assert finding.name == "shared_entities"
    assert finding.rows == 6
    assert finding.what.startswith("1 values of member")
    assert "group" in finding.hint


def test_entities_that_repeat_over_time_are_said_to_be_usual() -> None:
    frame = a_frame().assign(member="m0")
    (finding,) = found(frame, method="time")
    assert "usual" in finding.hint


@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_that_ranks_a_binary_target_is_a_proxy(sign: int) -> None:
    frame, target = a_frame(), a_target()
    frame["b"] = sign * (target + 0.1 * frame["a"].clip(-3, 3))
    (finding,) = found(frame, target)
    assert finding.name == "target_proxy"
    assert finding.columns == ("b",)
    assert "ROC AUC 1.0000" in finding.what


def test_a_good_feature_is_no_proxy() -> None:
    frame, target = a_frame(), a_target()
    frame["b"] = target + 0.4 * frame["a"]
    assert found(frame, target) == ()


def test_a_column_that_is_null_for_one_class_is_a_proxy() -> None:
    frame, target = a_frame(), a_target()
    frame["b"] = np.where(target == 1, frame["b"], np.nan)
    (finding,) = found(frame, target)
    assert finding.columns == ("b",)


def test_a_time_that_tells_the_class_is_a_proxy() -> None:
    frame, target = a_frame(), a_target()
    frame["b"] = pd.Timestamp("2020-01-01") + pd.to_timedelta(target, unit="D")
    assert [f.name for f in found(frame, target)] == ["target_proxy"]


def test_a_number_that_tells_one_of_many_classes_is_a_proxy() -> None:
    frame, target = a_frame(), a_target(5)
    frame["b"] = (target == 3) + 0.1 * frame["a"].clip(-3, 3)
    (finding,) = found(frame, target)
    assert "for 1 of 5 classes" in finding.what


def test_a_number_in_the_order_of_the_values_is_a_proxy_for_regression() -> None:
    frame, target = a_frame(), np.random.default_rng(3).normal(size=ROWS)
    frame["b"] = -np.exp(target)
    (finding,) = found(frame, target, task="regression")
    assert finding.columns == ("b",)
    assert "Spearman -1.0000" in finding.what


def test_a_rare_class_is_judged_on_all_rows() -> None:
    frame = a_frame(10_000)
    target = np.zeros(10_000, dtype=int)
    target[np.random.default_rng(4).choice(10_000, 12, replace=False)] = 1
    frame["b"] = target * 5 + frame["a"].clip(-2, 2)
    assert [f.columns for f in found(frame, target)] == [("b",)]


def test_a_category_that_names_the_class_is_a_proxy() -> None:
    frame, target = a_frame(), a_target(3)
    frame["colour"] = np.array(["red", "green", "blue"])[target]
    findings = found(frame, target)
    assert [f.columns for f in findings if f.name == "target_proxy"] == [("colour",)]


def test_a_common_class_does_not_make_every_category_a_proxy() -> None:
    frame, target = a_frame(10_000), np.zeros(10_000, dtype=int)
    target[a_split(rows=10_000).train[:1]] = 1
    assert found(frame, target) == ()


def test_a_category_unique_per_row_is_no_proxy() -> None:
    assert found(a_frame(), features=["member", "a"]) == ()


def test_few_rows_prove_nothing() -> None:
    frame, target = a_frame(15), a_target(rows=15)
    frame["b"] = target
    assert found(frame, target) == ()


def test_times_after_the_event_are_counted() -> None:
    frame = a_frame()
    frame["closed"] = frame["at"] - pd.Timedelta("1D")
    frame.loc[:4, "closed"] = frame["at"] + pd.Timedelta("1D")
    frame.loc[5:9, "closed"] = pd.NaT
    frame.loc[10:14, "closed"] = frame["at"]
    (finding,) = found(frame)
    assert finding.name == "timestamp_after_event"
    assert finding.rows == 5
    assert finding.columns == ("closed",)


def test_times_with_and_without_a_zone_compare_in_utc_even_in_the_year_9999() -> None:
    frame = a_frame()
    frame["valid_to"] = pd.Series(np.datetime64("9999-12-31", "us"), index=frame.index)
    (finding,) = found(frame)
    assert finding.rows == ROWS


def test_cells_that_hold_lists_are_compared_as_text() -> None:
    frame = a_frame()
    frame["colour"] = [[i % 3] for i in range(ROWS)]
    assert found(frame) == ()


def test_nullable_columns_are_understood() -> None:
    frame, target = a_frame(), a_target()
    frame["b"] = pd.array(target, dtype="Int64")
    frame.loc[3, "b"] = pd.NA
    assert [f.name for f in found(frame, target)] == ["target_proxy"]
