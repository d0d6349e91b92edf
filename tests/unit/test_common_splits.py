"""On how many rows finalists are judged, and how many windows of time there are."""

import pytest

from lodestar.core.tuning.common_splits import by_share, by_windows, common_split_seed, fold_of


@pytest.mark.parametrize(
    ("rows", "share"), [(400, 0.25), (5_000, 0.2), (40_000, 0.1), (10_000_000, 0.1)]
)
def test_no_more_rows_judge_a_common_split_than_are_needed(rows: int, share: float) -> None:
    found = by_share(rows, 10, 0.25)
    assert (found.count, found.validation_size, found.windows) == (10, share, None)
    assert found.train_size == 1 - share


def test_the_recipe_may_have_fewer_rows_judge_and_few_splits_more() -> None:
    assert by_share(40_000, 10, 0.05).validation_size == 0.05
    assert by_share(40_000, 2, 0.6).validation_size == 0.5


@pytest.mark.parametrize(
    ("split", "share", "fold"),
    [(0, 0.25, (0, 0)), (3, 0.25, (3, 0)), (4, 0.25, (0, 1)), (9, 0.1, (9, 0)), (3, 0.3, (0, 1))],
)
def test_common_splits_are_parts_of_one_shuffle_as_long_as_there_are_any(
    split: int, share: float, fold: tuple[int, int]
) -> None:
    first = common_split_seed(0)
    number, seed = fold
    assert fold_of(common_split_seed(split), share) == (number, first + seed)


def test_a_trials_own_split_is_no_part() -> None:
    assert fold_of(39, 0.25) is None


def test_each_of_many_classes_has_a_row_to_judge() -> None:
    assert by_share(10_000, 10, 0.25, classes=2_000).validation_size == 0.2


@pytest.mark.parametrize(("rows", "windows"), [(7_999, None), (8_000, 2), (400_000, 10)])
def test_windows_of_time_have_enough_rows_each(rows: int, windows: int | None) -> None:
    found = by_windows(rows, 10, 0.25, lambda count: count)
    assert (found.windows, found.count) == (windows, windows or 1)
    assert found.validation_size == pytest.approx(0.25 / found.count)


def test_the_rows_that_are_fitted_on_grow_from_window_to_window() -> None:
    # 75 %, 80 %, 85 %, 90 % and 95 % of the rows come before five windows.
    assert by_windows(100_000, 5, 0.25, lambda count: count).train_size == pytest.approx(0.85)


def test_fewer_windows_than_were_asked_for_are_the_first_of_those() -> None:
    found = by_windows(100_000, 5, 0.25, lambda count: count - 2)
    assert (found.count, found.windows) == (3, 5)
    assert by_windows(100_000, 5, 0.25, lambda count: 1).windows is None
