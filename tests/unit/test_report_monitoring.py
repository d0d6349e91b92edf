"""The monitoring page says what changed, since when, how sure that is, and what to do."""

import html
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
from tests.labelled import InMemory, days, judged

from lodestar.core.drift.judge import judge
from lodestar.core.drift.sketches import Reference, Window
from lodestar.core.drift.verdict import DriftReport
from lodestar.report.monitoring import MonitoringReport, TimeSlice, render_monitoring


def compared(name: str, *, by: float, rows: int = 1_000, answers_by: float = 0.0) -> DriftReport:
    """A number that has moved, text that has a new value, and predictions as they were."""
    draw = np.random.default_rng(5)
    trained = pa.table({name: draw.normal(size=2_000), "colour": ["red", "blue"] * 1_000})
    said = {"prediction": pa.array(draw.normal(size=500))}
    reference = Reference.of(trained, said, labels=False, importances={name: 3.0, "colour": 1.0})
    window = Window(reference)
    colours = pa.array([name if by and at < rows // 2 else "blue" for at in range(rows)])
    if not by:
        colours = pa.array(["red", "blue"] * (rows // 2))
    numbers, answers = draw.normal(by, size=rows), draw.normal(answers_by, size=rows)
    window.add({name: pa.array(numbers), "colour": colours, "prediction": pa.array(answers)}, rows)
    return judge(window)


def drifted(name: str) -> MonitoringReport:
    before, after = compared(name, by=0.0), compared(name, by=2.0)
    return MonitoringReport(
        recipe=name,
        run_name=name,
        run_id="8f3c2a9be1d0",
        trained_at="2026-01-01T10:00:00+00:00",
        source=name,
        checked_at="2026-03-01T13:00:00+00:00",
        drift=after,
        slices=(TimeSlice("2026-03-01 11:00", before), TimeSlice("2026-03-01 12:00", after)),
        since={name: "2026-03-01 12:00"},
        notes=(name,),
    )


def words(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", " ", page))


def test_what_changed_since_when_and_what_to_do_are_there() -> None:
    page = words(render_monitoring(drifted("age")))
    assert "2 columns of 3 changed" in page
    assert "since 2026-03-01 12:00" in page
    assert "importance 75%" in page
    assert "by chance less than once in a million" in page
    assert "train again on newer rows" in page
    assert "50.0% of the values are new: 'age' (500)" in page
    assert "values of training that do not come any more: 'red' (50.0%)" in page


def test_answers_that_changed_come_first_with_advice_of_their_own() -> None:
    moved = compared("age", by=2.0, answers_by=3.0)
    page = words(render_monitoring(replace(drifted("age"), drift=moved)))
    assert "lodestar rollback" in page
    assert page.index("lodestar rollback") < page.index("train again on newer rows")
    assert "lodestar rollback" not in words(render_monitoring(drifted("age")))


def test_the_bars_are_told_in_words_too() -> None:
    page = render_monitoring(drifted("age"))
    told = [
        html.unescape(label)
        for label in re.findall(r'class="paired"[^>]*aria-label="([^"]*)"', page)
    ]
    assert "blue: 50.0%, now 50.0%; red: 50.0%, now 0.0%; others: 0.0%, now 50.0%" in told
    assert page.count('class="paired"') == 2


def test_nothing_changed_is_said_so() -> None:
    steady = replace(drifted("age"), drift=compared("age", by=0.0), slices=(), since={}, notes=())
    page = words(render_monitoring(steady))
    assert "3 columns as in training" in page
    assert "Nothing that is both large and more than chance." in page
    assert "Over time" not in page


def test_too_few_rows_are_no_all_clear() -> None:
    few = replace(drifted("age"), drift=compared("age", by=0.0, rows=10), slices=(), since={})
    assert "too few rows to tell" in words(render_monitoring(few))


def test_columns_without_rows_are_not_counted_among_those_compared() -> None:
    drift = compared("age", by=2.0)
    unseen = [
        replace(each, verdict="too few rows", findings=()) if each.role == "prediction" else each
        for each in drift.columns
    ]
    page = render_monitoring(replace(drifted("age"), drift=replace(drift, columns=tuple(unseen))))
    assert "2 columns of 2 changed" in words(page)


def test_what_has_only_begun_is_said_so() -> None:
    begun = replace(drifted("age"), drift=compared("age", by=0.0), lately=("age",))
    page = words(render_monitoring(begun))
    assert "1 column of 3 changed" in page
    assert "Only begun, and not yet seen in all rows together: age (since 2026-03-01 12:00)" in page


def test_names_and_values_of_the_data_are_no_markup() -> None:
    hostile = "</script><script>alert(1)</script>"
    page = render_monitoring(drifted(hostile))
    assert hostile not in page
    assert hostile in words(page)


def test_the_page_needs_no_network_and_is_small() -> None:
    page = render_monitoring(drifted("age"))
    assert "default-src 'none'" in html.unescape(page)
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert len(page) < 60_000


def labelled(name: str, *, wrong_from: int, of: str = "age") -> MonitoringReport:
    report = judged(InMemory(days(6, 400, 5, wrong_from=wrong_from)))
    segments = tuple(replace(each, label=name) for each in report.segments[:1])
    labels = replace(report, keys=(name,), segments=(*segments, *report.segments[1:]))
    return replace(drifted(of), labels=labels)


def test_what_labels_say_comes_first_with_trends_segments_and_calibration() -> None:
    text = words(render_monitoring(labelled("request_id", wrong_from=3)))
    assert text.index("Outcomes") < text.index("What changed")
    assert "Degraded in the last parts:" in text
    assert "ROC AUC (since 2026-03-04 00:00)" in text
    assert "joined by request_id" in text
    assert "colour = blue" in text
    assert "Whether probabilities hold" in text
    assert "lodestar rollback" in text
    good = words(render_monitoring(labelled("request_id", wrong_from=9)))
    assert "Degraded in the last parts" not in good


def test_trends_are_told_in_words_too() -> None:
    page = render_monitoring(labelled("request_id", wrong_from=3))
    told = re.findall(r'class="trend"[^>]*aria-label="([^"]*)"', page)
    assert len(told) == 4
    assert told[0].startswith("ROC AUC by day: 2026-03-01 0.")
    assert page.count('class="value worse"') >= 3


def test_what_is_not_judged_yet_is_said_so() -> None:
    early = judged(InMemory(days(2, 12, 2, wrong_from=9)))
    page = words(render_monitoring(replace(drifted("age"), labels=early)))
    assert "no part of the time is judged yet" in page
    assert "too few labels: 12 of at least 30" in page


def test_names_of_segments_are_no_markup() -> None:
    hostile = "</script><script>alert(1)</script>"
    assert hostile not in render_monitoring(labelled(hostile, wrong_from=3))
