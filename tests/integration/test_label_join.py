"""Labels find their predictions, as a brute force in plain Python does; what is left over is counted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lodestar.adapters.joins.labels import JoinPlan, label_join
from lodestar.core.labels.judge import LabelledPart
from lodestar.core.labels.results import Coverage, JoinCounts
from lodestar.errors import ExternalError

MICRO = 1_000_000


@dataclass(frozen=True)
class Made:
    """Predictions `(key, at)` and labels `(key, at, target)`; times in seconds."""

    predictions: Sequence[tuple[int, int | None]]
    labels: Sequence[tuple[int, int | None, int]]


def plan(**changes: Any) -> JoinPlan:  # noqa: ANN401 -- any field
    given: dict[str, Any] = {
        "keys": ("id",),
        "by_request": False,
        "single": False,
        "timed": True,
        "dated": True,
        "unit": "day",
        "within": None,
    }
    return JoinPlan(**{**given, **changes})


def micros(seconds: Sequence[int | None]) -> pa.Array:
    return pa.array([None if at is None else at * MICRO for at in seconds], pa.int64())


@dataclass(frozen=True)
class Result:
    """Prediction's number → its label's target, and what was counted."""

    told: dict[int, int | None]
    counts: JoinCounts
    coverage: Coverage
    parts: Sequence[LabelledPart]


def joined(made: Made, how: JoinPlan, folder: Path) -> Result:
    """Join them in batches of three."""
    with label_join(how, folder=folder) as join:
        for start in range(0, len(made.predictions), 3):
            part = made.predictions[start : start + 3]
            join.add_predictions(
                pa.table(
                    {
                        "key_0": [key for key, _ in part],
                        "moment": micros([at for _, at in part]),
                        "prediction": pa.array(range(start, start + len(part)), pa.float64()),
                    }
                )
            )
        for start in range(0, len(made.labels), 3):
            some = made.labels[start : start + 3]
            join.add_labels(
                pa.table(
                    {
                        "key_0": [key for key, _, _ in some],
                        "moment": micros([at for _, at, _ in some]),
                        "target": pa.array([float(target) for _, _, target in some]),
                        "treatment": pa.array([0] * len(some), pa.int32()),
                    }
                )
            )
        found = join.join(JoinCounts(labels=len(made.labels)))
        numbers = [part.number for part in found.parts()]
        rows = found.rows(numbers, 1_000_000).to_pylist()
        labelled = {int(row["prediction"]): int(row["target"]) for row in rows}
        coverage = found.coverage
        assert coverage.labelled == len(labelled)
        told = {at: labelled.get(at) for at in range(len(made.predictions))}
        return Result(told, found.counts, coverage, found.parts())


def expected(made: Made, within: int | None) -> dict[int, int | None]:
    """The first label at or after each prediction, unless those of its moment disagree."""
    told: dict[int, int | None] = {}
    for number, (key, at) in enumerate(made.predictions):
        assert at is not None
        moments: dict[int, set[int]] = {}
        for label_key, label_at, target in made.labels:
            if label_key == key and label_at is not None:
                moments.setdefault(label_at, set()).add(target)
        good = {when: targets for when, targets in moments.items() if len(targets) == 1}
        first = min((when for when in good if when >= at), default=None)
        late = first is not None and within is not None and first - at > within
        told[number] = None if first is None or late else next(iter(good[first]))
    return told


@pytest.mark.parametrize("within", [None, 40])
def test_every_prediction_gets_the_first_label_after_it(tmp_path: Path, within: int | None) -> None:
    draw = np.random.default_rng(17)
    for _ in range(8):
        made = Made(
            [(int(draw.integers(6)), int(draw.integers(100))) for _ in range(20)],
            [
                (int(draw.integers(8)), int(draw.integers(120)), int(draw.integers(2)))
                for _ in range(25)
            ],
        )
        span = None if within is None else timedelta(seconds=within)
        found = joined(made, plan(within=span), tmp_path)
        assert found.told == expected(made, within)
        keys = {key for key, _ in made.predictions}
        without = sum(key not in keys for key, _, _ in made.labels)
        assert found.counts.without_prediction == without


def test_of_a_request_the_newest_label_counts_and_disagreement_counts_for_nobody(
    tmp_path: Path,
) -> None:
    made = Made(
        [(1, 50), (2, 50), (3, 50), (4, 50)],
        [
            (1, 60, 0),
            (1, 70, 1),
            (2, 60, 1),
            (2, 80, 0),
            (2, 80, 1),
            (3, 40, 1),
            (4, 60, 1),
            (4, 60, 1),
        ],
    )
    found = joined(made, plan(by_request=True), tmp_path)
    # The one of 3 is dated before its prediction: clocks differ, and it is still that request's.
    assert found.told == {0: 1, 1: None, 2: 1, 3: 1}
    assert (found.counts.conflicting, found.counts.before) == (2, 1)
    assert found.coverage.delay_median == pytest.approx(15.0, abs=6)


def test_requests_that_their_id_does_not_tell_apart_are_left_out(tmp_path: Path) -> None:
    made = Made([(1, 5), (1, 5), (2, 5)], [(1, 9, 1), (2, 9, 1)])
    found = joined(made, plan(by_request=True, single=True), tmp_path)
    assert found.told == {0: None, 1: None, 2: 1}
    assert found.counts.ambiguous == 2
    assert found.coverage.predictions == 1


def test_without_times_a_key_has_one_label(tmp_path: Path) -> None:
    made = Made(
        [(1, None), (1, None), (2, None), (3, None)], [(1, None, 1), (2, None, 0), (2, None, 1)]
    )
    found = joined(made, plan(timed=False, dated=False), tmp_path)
    assert found.told == {0: 1, 1: 1, 2: None, 3: None}
    assert found.counts.conflicting == 2
    (part,) = found.parts
    assert part.begins is None
    assert part.coverage.delay_median is None


def test_labels_older_than_every_prediction_of_theirs_are_counted(tmp_path: Path) -> None:
    made = Made([(1, 50), (1, 90)], [(1, 10, 1), (1, 60, 0)])
    found = joined(made, plan(), tmp_path)
    assert found.told == {0: 0, 1: None}
    assert found.counts.before == 1


def test_parts_begin_with_their_day_also_before_1970(tmp_path: Path) -> None:
    made = Made([(1, -5), (1, 86_405)], [(1, 86_500, 1)])
    found = joined(made, plan(), tmp_path)
    assert [f"{part.begins:%Y-%m-%d}" for part in found.parts] == ["1969-12-31", "1970-01-02"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ExternalError, match="cannot be joined") as refused,
        label_join(plan(), folder=tmp_path / "gone"),
    ):
        pass
    assert "TMPDIR" in str(refused.value.hint)


def test_a_sample_is_always_the_same_and_the_folder_goes(tmp_path: Path) -> None:
    made = Made([(at, 5) for at in range(300)], [(at, 9, at % 2) for at in range(300)])
    drawn = []
    for _ in range(2):
        with label_join(plan(), folder=tmp_path) as join:
            join.add_predictions(
                pa.table(
                    {
                        "key_0": list(range(300)),
                        "moment": micros([5] * 300),
                        "prediction": np.arange(300.0),
                    }
                )
            )
            join.add_labels(
                pa.table(
                    {
                        "key_0": list(range(300)),
                        "moment": micros([9] * 300),
                        "target": pa.array([float(target) for _, _, target in made.labels]),
                        "treatment": pa.array([0] * 300, pa.int32()),
                    }
                )
            )
            found = join.join(JoinCounts(labels=300))
            drawn.append(found.rows([0], 50).column("prediction").to_pylist())
            assert found.rows([], 50).num_rows == 0
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 50
    assert max(drawn[0]) > 100
    assert not list(tmp_path.iterdir())
