"""Windows of time: each is judged by what came before it, and has rows of every label."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from tests.searching import problem_of

from lodestar.core.splitter import Split, Splitter
from lodestar.errors import DataError
from lodestar.interface.execution import TrialTask
from lodestar.settings import recipe

START = pd.Timestamp("2025-01-01", tz="UTC")
SMALL = {"n_estimators": 5, "n_jobs": 1}


def windows(
    seconds: NDArray[np.int64],
    labels: NDArray[Any] | None,
    count: int,
    *,
    share: float = 0.5,
    gap: float = 0.0,
) -> list[Split]:
    section = recipe.Split(method="time", validation_size=share, gap_seconds=gap)
    splitter = Splitter(section, task="classification", timestamp_col="at")
    frame = pd.DataFrame({"at": START + pd.to_timedelta(seconds, unit="s")})
    return splitter.windows(frame, labels, np.arange(len(seconds)), count=count)


def test_windows_together_are_the_rows_that_one_split_sets_aside() -> None:
    seconds = np.random.default_rng(1).permutation(100)
    found = windows(seconds, None, 5)
    assert [len(one.test) for one in found] == [10] * 5
    for number, one in enumerate(found):
        start = 50 + 10 * number
        assert sorted(seconds[one.test]) == list(range(start, start + 10))
        assert sorted(seconds[one.train]) == list(range(start))


def test_the_gap_is_kept_before_each_of_them() -> None:
    for one in windows(np.arange(100), None, 5, gap=7):
        assert one.test.min() - one.train.max() == 7


def test_rows_of_one_time_are_in_one_window() -> None:
    found = windows(np.repeat(np.arange(4), 25), None, 10)
    assert [sorted(one.test) for one in found] == [list(range(50, 75)), list(range(75, 100))]


def test_a_window_without_a_label_is_one_with_its_neighbour() -> None:
    labels = np.zeros(100, dtype=np.int64)
    labels[[1, 55, 62, 88]] = 1  # by windows of ten rows: 50-59 and 60-69, none in 70-79, 80-89
    found = windows(np.arange(100), labels, 5)
    assert [(one.test.min(), one.test.max()) for one in found] == [(50, 59), (60, 69), (70, 99)]
    assert all(set(labels[one.test]) == {0, 1} for one in found)


def test_one_window_is_left_where_one_label_is_rare() -> None:
    labels = np.zeros(100, dtype=np.int64)
    labels[99] = 1
    (only,) = windows(np.arange(100), labels, 5)
    assert (only.test.min(), only.test.max()) == (50, 99)


def test_times_that_are_all_the_same_are_refused_as_ever() -> None:
    with pytest.raises(DataError, match="too many rows share one time"):
        windows(np.zeros(100, dtype=np.int64), None, 5)


def test_a_finalist_is_fitted_on_what_came_before_its_window() -> None:
    section = recipe.Split(method="time", validation_size=0.5)
    problem = problem_of(split=section)
    times = START + pd.to_timedelta(np.arange(300)[::-1], unit="s")
    problem.split_columns["event_timestamp"] = times
    values = []
    for number, split in enumerate(problem.windows(3)):
        train = problem.learner.prepare(
            problem.inputs.take(split.train), problem.truth.at(split.train)
        )
        model = problem.learner.single_training_iteration(train, SMALL)
        predicted = model.score(problem.inputs.take(split.test)).predictions
        expected = problem.metric.compute(problem.truth.at(split.test), predicted)
        task = TrialTask(0, SMALL, 1_000_000 + number, watched=False, window=(number, 3))
        assert problem.run(task, lambda step, value: None, lambda: False).value == expected
        values.append(expected)
    assert len(set(values)) == 3
