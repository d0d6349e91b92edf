from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from lodestar.core.results import Task
from lodestar.core.splitter import Split, Splitter
from lodestar.errors import DataError, SchemaError
from lodestar.settings import recipe

HOUR = pd.Timedelta("1h")


def a_frame(rows: int = 100) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "member": [f"m{i % 10}" for i in range(rows)],
            "at": pd.date_range("2025-01-01", periods=rows, freq="h", tz="UTC"),
        }
    )


def a_splitter(task: Task = "classification", **section: object) -> Splitter:
    return Splitter(recipe.Split.model_validate(section), task=task, timestamp_col="at")


def test_auto_is_stratified_for_classification_and_causal_and_random_for_regression() -> None:
    labels = np.arange(100) % 2
    tasks: tuple[Task, ...] = ("classification", "causal", "regression")
    used = {task: a_splitter(task).holdout(a_frame(), labels).method for task in tasks}
    assert used == {"classification": "stratified", "causal": "stratified", "regression": "random"}


def test_a_stratified_split_keeps_the_share_of_each_class() -> None:
    labels = (np.arange(100) % 5 == 0).astype(int)
    split = a_splitter(test_size=0.2).holdout(a_frame(), labels)
    assert labels[split.test].sum() == 4
    assert labels[split.train].sum() == 16


def test_validation_positions_refer_to_the_whole_frame() -> None:
    splitter, labels = a_splitter(), np.arange(100) % 2
    outer = splitter.holdout(a_frame(), labels)
    inner = splitter.validation(a_frame(), labels, outer.train, seed=7)
    assert np.array_equal(np.union1d(inner.train, inner.test), outer.train)
    assert len(inner.test) == 20
    assert inner.train.dtype == np.int64


def test_validation_splits_differ_by_seed() -> None:
    splitter, labels, every = a_splitter(), np.arange(100) % 2, np.arange(100)
    first, second = (splitter.validation(a_frame(), labels, every, seed=s).test for s in (1, 2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("method", ["random", "stratified"])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.3, 1 / 3])
def test_parts_of_one_shuffle_have_no_row_in_common(method: str, share: float) -> None:
    labels = np.random.default_rng(1).choice(["a", "b", "c"], p=[0.6, 0.3, 0.1], size=997)
    made = a_splitter(method=method)
    positions = np.arange(500, 997)

    def part(number: int, seed: int = 5) -> Split:
        return made.validation(
            a_frame(997), labels, positions, seed=0, share=share, fold=(number, seed)
        )

    parts = [part(number) for number in range(int(1 / share + 1e-9))]
    aside = np.concatenate([one.test for one in parts])
    assert len(np.unique(aside)) == len(aside)
    assert len(aside) >= len(parts) * int(share * 497)
    for one in parts:
        assert np.array_equal(np.sort(np.concatenate([one.train, one.test])), positions)
        assert abs(len(one.test) - share * 497) <= 1
        if method == "stratified":
            wanted = np.unique(labels[positions], return_counts=True)[1] * share
            found = np.unique(labels[one.test], return_counts=True)[1]
            assert np.abs(found - wanted).max() <= 1
    assert not np.array_equal(part(0).test, part(0, seed=6).test)


def test_groups_stay_together_in_parts_too() -> None:
    groups = np.repeat(np.arange(20), 5)
    data = a_frame(100).assign(g=groups)
    made = a_splitter(method="group", group_col="g")
    found = made.validation(data, None, np.arange(100), seed=1, share=0.2, fold=(1, 5))
    assert not set(groups[found.train]) & set(groups[found.test])


def test_seeds_beyond_32_bits_are_fine() -> None:
    split = a_splitter("regression", seed=2**40 + 1).holdout(a_frame(), None)
    assert len(split.test) == 20


def test_rows_of_a_group_stay_together() -> None:
    frame = a_frame()
    split = a_splitter(method="group", group_col="member").holdout(frame, None)
    assert not set(frame["member"].iloc[split.train]) & set(frame["member"].iloc[split.test])
    assert frame["member"].iloc[split.test].nunique() == 2


def test_a_split_by_time_tests_on_the_latest_rows_and_keeps_the_gap() -> None:
    frame = a_frame().sample(frac=1, random_state=0)
    split = a_splitter(method="time", gap_seconds=3 * 3600).holdout(frame, None)
    start = frame["at"].iloc[split.test].min()
    assert len(split.test) == 20
    assert start - frame["at"].iloc[split.train].max() == 3 * HOUR
    assert len(split.train) == 78


def test_rows_of_the_very_time_at_which_the_test_starts_are_all_in_it() -> None:
    frame = pd.DataFrame({"at": pd.to_datetime(["2025-01-01"] * 4 + ["2025-01-02"] * 6)})
    split = a_splitter(method="time", test_size=0.2).holdout(frame, None)
    assert split.test.tolist() == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("kind", ["text", "date", "arrow"])
def test_times_may_be_text_dates_or_arrow_timestamps(kind: str) -> None:
    frame = a_frame()
    frame["at"] = pd.date_range("2025-01-01", periods=100, freq="D")
    if kind == "text":
        frame["at"] = frame["at"].astype(str)
    elif kind == "date":
        frame["at"] = frame["at"].dt.date
    else:
        frame["at"] = frame["at"].astype("timestamp[us][pyarrow]")
    split = a_splitter(method="time").holdout(frame, None)
    assert split.test.tolist() == list(range(80, 100))


def test_a_missing_group_column_is_named() -> None:
    with pytest.raises(SchemaError, match="'membr'") as caught:
        a_splitter(method="group", group_col="membr").holdout(a_frame(), None)
    assert "SELECT" in str(caught.value.hint)


def test_a_missing_timestamp_column_is_named() -> None:
    with pytest.raises(SchemaError, match="event_timestamp_col"):
        a_splitter(method="time").holdout(a_frame().drop(columns="at"), None)


@pytest.mark.parametrize("values", [range(100), ["soon"] * 100])
def test_a_column_without_timestamps_cannot_order_rows(
    values: Sequence[int | str],
) -> None:
    with pytest.raises(SchemaError, match="holds no timestamps"):
        a_splitter(method="time").holdout(a_frame().assign(at=values), None)


def test_rows_without_a_time_are_counted() -> None:
    frame = a_frame()
    frame.loc[[3, 4], "at"] = pd.NaT
    with pytest.raises(DataError, match="2 of 100 rows have no time"):
        a_splitter(method="time").holdout(frame, None)


def test_rows_without_a_group_are_counted() -> None:
    frame = a_frame()
    frame.loc[[3, 4], "member"] = None
    with pytest.raises(DataError, match="2 of 100 rows have no value"):
        a_splitter(method="group", group_col="member").holdout(frame, None)


def test_a_class_with_one_row_is_named() -> None:
    labels = np.r_[np.zeros(99, dtype=int), 7]
    with pytest.raises(DataError, match="only 1 has class 7") as caught:
        a_splitter().holdout(a_frame(), labels)
    assert "method: random" in str(caught.value.hint)


def test_more_classes_than_test_rows_are_refused() -> None:
    with pytest.raises(DataError, match="too few to have each of 5 classes"):
        a_splitter().holdout(a_frame(10), np.arange(10) % 5)


def test_a_stratified_split_without_classes_is_refused() -> None:
    with pytest.raises(DataError, match="needs classes"):
        a_splitter("regression", method="stratified").holdout(a_frame(), None)


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("method", ["random", "time"])
def test_too_few_rows_are_refused(rows: int, method: str) -> None:
    with pytest.raises(DataError, match=f"{rows} rows cannot be split"):
        a_splitter(method=method).holdout(a_frame(rows), None)


def test_a_single_group_is_refused() -> None:
    with pytest.raises(DataError, match="1 groups in column 'member'"):
        a_splitter(method="group", group_col="member").holdout(a_frame().assign(member="a"), None)


def test_a_gap_that_leaves_no_training_rows_is_refused() -> None:
    with pytest.raises(DataError, match="no training rows are left 1e"):
        a_splitter(method="time", gap_seconds=1e9).holdout(a_frame(), None)


def test_one_time_for_all_rows_is_refused() -> None:
    frame = a_frame().assign(at=pd.Timestamp("2025-01-01"))
    with pytest.raises(DataError, match="no row is earlier"):
        a_splitter(method="time").holdout(frame, None)
