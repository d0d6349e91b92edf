"""Labelled predictions are judged as a whole, by time and by segment, and noise raises no alarm."""

import json
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from tests.labelled import BEGAN, DAY, InMemory, days, judged

from lodestar.cli.label_views import labels_json
from lodestar.core.drift.sketches import SketchedColumn
from lodestar.core.labels.codes import Codes
from lodestar.core.labels.details import calibration, residuals
from lodestar.core.labels.results import Calibration, TimePart
from lodestar.core.labels.segments import segmenter_of
from lodestar.core.results import Predictions, Truth
from lodestar.core.roles import TargetReader
from lodestar.errors import SchemaError, UsageError


def test_rows_like_those_of_training_raise_no_alarm_in_any_of_twenty_windows() -> None:
    verdicts = [judged(InMemory(days(5, 150, seed, wrong_from=9))).verdict for seed in range(20)]
    assert verdicts.count("degraded") == 0


def test_a_model_that_became_worse_is_degraded_since_the_day_that_it_did() -> None:
    report = judged(InMemory(days(6, 400, 5, wrong_from=3)))
    assert report.verdict == "degraded"
    assert "brier" in report.lately
    assert report.since("brier") == BEGAN + 3 * DAY
    assert [point.begins for point in report.series("accuracy")] == [
        BEGAN + at * DAY for at in range(6)
    ]
    before, after = report.parts[0].performance, report.parts[-1].performance
    assert before is not None
    assert after is not None
    assert (before.verdict, after.verdict) == ("unchanged", "degraded")


def test_a_day_that_was_bad_and_is_over_is_no_alarm_of_now() -> None:
    good, bad = days(5, 400, 5, wrong_from=9), days(1, 400, 6, wrong_from=0)
    report = judged(InMemory([*good[:2], *bad, *good[2:]]))
    worst = report.parts[2].performance
    assert worst is not None
    assert worst.verdict == "degraded"
    assert report.lately == ()
    assert report.since("brier") is None


def test_only_the_segment_that_became_worse_is_named() -> None:
    report = judged(InMemory(days(6, 600, 7, wrong_from=3, of="blue")))
    found = {each.label: each.performance.verdict for each in report.segments}
    assert found == {"red": "unchanged", "blue": "degraded"}
    assert report.verdict == "degraded"
    blue = report.series("accuracy", ("colour", "blue"))
    assert len(blue) == 6
    assert blue[-1].estimate.value < blue[0].estimate.value - 0.1


def test_a_segment_that_was_always_harder_raises_no_alarm() -> None:
    tables = days(6, 600, 8, wrong_from=0, of="blue")
    found = {each.label: each.performance for each in judged(InMemory(tables)).segments}
    assert found["blue"].metrics["accuracy"].value < found["red"].metrics["accuracy"].value
    assert found["blue"].verdict == "unchanged"


def test_a_part_whose_labels_cannot_have_come_is_not_judged() -> None:
    joined = InMemory(days(4, 100, 2, wrong_from=9), [100, 100, 100, 1_000])
    states = [(part.state, part.why) for part in judged(joined).parts]
    assert [state for state, _ in states] == ["judged", "judged", "judged", "labels missing"]
    assert states[3][1] == "10% of its predictions have a label; usual are 100%"
    # Labels may take three days, and two have passed since the end of the last day.
    early = judged(joined, now=BEGAN + 6 * DAY, within=3 * DAY)
    assert [part.state for part in early.parts] == ["judged"] * 3 + ["too early"]
    assert early.parts[3].why == "its labels are due by 2026-03-08 00:00 UTC"
    assert early.matures_after == timedelta(days=3).total_seconds()
    # Else the time that 95 % of the labels took counts: two hours.
    soon = judged(joined, now=BEGAN + 4 * DAY + timedelta(hours=1))
    assert soon.parts[3].state == "too early"


def test_few_labels_are_no_verdict() -> None:
    report = judged(InMemory(days(2, 12, 2, wrong_from=0)))
    assert report.whole is None
    assert report.verdict == "not comparable"
    assert report.why == "no part of the time is judged yet: 12 of at least 30"


def test_the_json_has_every_part_and_segment_and_no_nan() -> None:
    report = judged(InMemory(days(3, 200, 5, wrong_from=9)))
    value = labels_json(report)
    assert value is not None
    text = json.dumps(value, allow_nan=False)
    assert json.loads(text)["parts"][0]["performance"]["metrics"]["accuracy"]["value"] > 0.5
    assert {each["label"] for each in value["parts"][0]["segments"]} == {"red", "blue"}
    assert value["whole"]["detail"]["kind"] == "calibration"


def test_probabilities_that_hold_are_told_from_those_that_do_not() -> None:
    draw = np.random.default_rng(11)
    said = draw.uniform(size=20_000)
    target = (draw.uniform(size=20_000) < said).astype(np.int64)
    holding = calibrated(said, target)
    assert holding.ece < 0.02
    assert holding.ece == pytest.approx(holding.ece_of_chance, abs=0.01)
    assert all(
        each.observed_low <= each.predicted <= each.observed_high for each in holding.bins[:3]
    )
    bold = np.where(said > 0.5, 0.95, 0.05)
    off = calibrated(bold, target)
    assert off.ece == pytest.approx(0.2, abs=0.02)
    assert len(off.bins) == 2


def calibrated(said: np.ndarray, target: np.ndarray) -> Calibration:
    predictions = Predictions(
        (said > 0.5).astype(int), np.column_stack([1 - said, said]), ("n", "y")
    )
    return calibration(Truth(target, classes=("n", "y")), predictions)


def test_of_many_classes_the_one_that_is_said_is_held_to_its_word() -> None:
    shares = np.tile([0.7, 0.2, 0.1], (10, 1))
    target = np.array([0] * 7 + [1] * 3)
    one = calibration(Truth(target), Predictions(np.zeros(10), shares, ("a", "b", "c")))
    (only,) = one.bins
    assert (only.rows, only.observed) == (10, 0.7)
    assert only.predicted == pytest.approx(0.7)
    assert one.ece == pytest.approx(0.0)


def test_residuals_say_which_way_errors_lean() -> None:
    truth = Truth(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    found = residuals(truth, Predictions(np.array([2.0, 2.0, 5.0, 4.0, 7.0])))
    assert found.bias.value == pytest.approx(1.0)
    assert found.bias.low < 1.0 < found.bias.high
    assert dict(found.quantiles)[0.5] == 1.0


def codes_of(column: pa.Array, *, name: str = "c", sensitive: str | None = None) -> list[str]:
    sketch = SketchedColumn.of(name, column, sensitive=sensitive).sketch
    cut = segmenter_of(name, sketch, column.type)
    codes = cut.codes(column).to_pylist()
    return [cut.labels()[code] for code in codes]


def test_segments_are_values_quartiles_and_rows_without_a_value() -> None:
    assert codes_of(pa.array(["a", "b", None] * 30))[:3] == ["a", "b", "no value"]
    assert codes_of(pa.array([1, 2, None] * 30))[:3] == ["1", "2", "no value"]
    ranges = codes_of(pa.array([float(value) for value in range(1_000)]))
    assert [ranges.count(name) for name in dict.fromkeys(ranges)] == pytest.approx(
        [250] * 4, abs=20
    )
    assert ranges[0].startswith("up to ")
    assert ranges[-1].startswith("above ")


def test_values_that_no_sketch_knows_are_told_apart_while_they_are_few() -> None:
    cut = segmenter_of("place", None, pa.string())
    column = pa.array([f"v{at % 40}" if at % 2 else "often" for at in range(400)])
    codes = cut.codes(column).to_pylist()
    names = [cut.labels()[code] for code in codes]
    assert names[0] == "often"
    assert len(set(names)) == 13
    assert "others" in names


def test_a_sensitive_column_makes_no_segments() -> None:
    for column in (pa.array(["a", "b"] * 20), pa.array([1.5, 2.5] * 20)):
        with pytest.raises(UsageError, match="sensitive"):
            codes_of(column, sensitive="salt")


def test_labels_that_cannot_be_the_tasks_are_refused() -> None:
    text, number = pa.field("y", pa.string()), pa.field("y", pa.int64())
    with pytest.raises(SchemaError, match="regression needs numbers"):
        Codes(TargetReader("regression")).check(text, "the label")
    with pytest.raises(SchemaError, match="the classes of training are string: 'no', 'yes'"):
        Codes(TargetReader("classification", ("no", "yes"))).check(number, "the label")
    whole = Codes(TargetReader("classification", (0, 1)))
    whole.check(pa.field("y", pa.float64()), "the label")
    assert whole.coded(pa.array([1.0, 0.0, None, 7.0, 0.5])).to_pylist() == [1, 0, None, -1, -1]


def test_what_is_not_judged_has_no_figures() -> None:
    early = judged(InMemory(days(2, 50, 1, wrong_from=9)), now=BEGAN)
    assert all(part.performance is None for part in early.parts)
    assert early.series("accuracy") == ()
    assert isinstance(early.parts[0], TimePart)
