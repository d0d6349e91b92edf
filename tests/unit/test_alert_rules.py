"""Rules over measurements: pending, firing, resolved; and who has to be told."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.labelled import InMemory, days, judged

from lodestar.core.alerts.readings import (
    Measured,
    Series,
    of_drift,
    of_features,
    of_labels,
    of_performance,
)
from lodestar.core.alerts.rules import FORGOTTEN, Alert, Kept, Rule, evaluate
from lodestar.core.alerts.telling import (
    AlertState,
    ChannelState,
    NewerStateError,
    due,
    held_back,
    told,
)
from lodestar.core.drift.verdict import ColumnDrift, DriftReport, Finding, Limits, Verdict
from lodestar.core.performance import Rival, compare
from lodestar.core.results import Evaluation, MetricEstimate
from lodestar.core.staleness import Ages, ViewStatus
from lodestar.settings.alerts import AlertRule

HOUR = 3_600.0
COLUMNS = Series.of("drift.columns")
DRIFTS = Rule("it drifts", "drift.columns", above=0)


def psi(column: str) -> Series:
    return Series.of("drift.psi", column=column)


def measured(values: Mapping[Series, float], run_id: str = "run one") -> Measured:
    return Measured("monitor", "shop", run_id, values)


def after(
    *rules: Rule, steps: Sequence[tuple[float, float]], series: Series = COLUMNS
) -> list[Kept]:
    """What is kept after each measurement (time, value)."""
    kept, found = Kept(), []
    for now, value in steps:
        kept = evaluate(rules, measured({series: value}), kept, now=now)
        found.append(kept)
    return found


def only(kept: Kept) -> Alert:
    (alert,) = kept.alerts.values()
    return alert


def test_without_a_time_an_alert_fires_at_once_and_ends_at_once() -> None:
    first, second, third = after(DRIFTS, steps=[(100, 0), (200, 3), (300, 0)])
    assert not first.alerts
    assert only(second).state == "firing"
    assert (only(second).since, only(second).value) == (200, 3)
    assert not third.alerts


def test_with_a_time_it_waits_and_begins_anew_after_a_good_value() -> None:
    rule = replace(DRIFTS, lasts=HOUR)
    steps = [(0, 1), (3_000, 1), (3_599, 1), (3_600, 1), (3_700, 0), (3_800, 1), (7_300, 1)]
    states = [
        next((alert.state for alert in kept.alerts.values()), "none")
        for kept in after(rule, steps=steps)
    ]
    assert states == ["pending", "pending", "pending", "firing", "none", "pending", "pending"]


@pytest.mark.parametrize(
    ("rule", "value", "fires"),
    [
        (Rule("r", "drift.columns", above=2), 2, False),
        (Rule("r", "drift.columns", above=2), 2.1, True),
        (Rule("r", "drift.columns", below=0.8), 0.8, False),
        (Rule("r", "drift.columns", below=0.8), 0.7, True),
        (Rule("r", "drift.columns", below=0.8), math.nan, False),
        (Rule("r", "drift.rows", above=2), 3, False),
        (Rule("r", "drift.columns", above=2, where={"source": "monitor"}), 3, True),
        (Rule("r", "drift.columns", above=2, where={"source": "train"}), 3, False),
        (Rule("r", "drift.columns", above=2, where={"recipe": "shop", "x": "y"}), 3, False),
    ],
)
def test_a_bound_is_not_beyond_itself_and_a_rule_picks_its_series(
    rule: Rule, value: float, *, fires: bool
) -> None:
    (kept,) = after(rule, steps=[(0, value)])
    assert bool(kept.alerts) is fires


def test_each_column_has_an_alert_of_its_own() -> None:
    rule = Rule("far off", "drift.psi", above=0.2)
    values = {psi("age"): 0.5, psi("city"): 0.1, psi("income"): 0.3}
    kept = evaluate([rule], measured(values), Kept(), now=0)
    columns = [dict(alert.series.labels)["column"] for alert in kept.alerts.values()]
    assert columns == ["age", "income"]
    values[psi("age")] = 0.0
    kept = evaluate([rule], measured(values), kept, now=1)
    assert [dict(alert.series.labels)["column"] for alert in kept.alerts.values()] == ["income"]


def test_what_is_not_measured_stays_as_it_is_until_another_run_takes_its_place() -> None:
    rule = Rule("far off", "drift.psi", above=0.2)
    kept = evaluate([rule], measured({psi("age"): 0.5}), Kept(), now=0)
    for other in (
        measured({Series.of("drift.rows"): 3.0}),
        measured({psi("city"): 0.0}),
        measured({Series.of("drift.rows"): 3.0}, "run two"),
        replace(measured({psi("city"): 0.0}, "run two"), source="batch-inference"),
        replace(measured({psi("city"): 0.0}, "run two"), recipe="another"),
    ):
        kept = evaluate([rule], other, kept, now=1)
        assert only(kept).since == 0
    assert not evaluate([rule], measured({psi("city"): 0.0}, "run two"), kept, now=2).alerts


def test_of_what_was_not_measured_for_a_week_nobody_knows() -> None:
    kept = evaluate([DRIFTS], measured({COLUMNS: 1}), Kept(), now=0)
    nothing = measured({})
    assert evaluate([DRIFTS], nothing, kept, now=FORGOTTEN - 1).alerts
    assert not evaluate([DRIFTS], nothing, kept, now=FORGOTTEN).alerts


def test_a_rule_that_is_gone_takes_its_alerts_along() -> None:
    kept = evaluate([DRIFTS], measured({COLUMNS: 1}), Kept(), now=0)
    assert not evaluate([], measured({}), kept, now=1).alerts


@pytest.mark.parametrize(
    ("over", "beyond"), [("last", False), ("mean", True), ("min", False), ("max", True)]
)
def test_a_window_is_judged_as_the_rule_says(
    over: Literal["last", "mean", "min", "max"], *, beyond: bool
) -> None:
    rule = Rule("r", "drift.columns", above=1, window=HOUR, over=over)
    steps = [(0, 9), (1, 9), (2_000, 4), (3_700, 0)]  # the first two have left by the end
    assert bool(after(rule, steps=steps)[-1].alerts) is beyond
    if over == "mean":
        assert only(after(rule, steps=steps)[-1]).value == 2


@given(st.lists(st.integers(-1_000_000, 1_000_000), min_size=1, max_size=20))
def test_clocks_that_jump_lose_no_alert_and_keep_none_waiting(jumps: list[int]) -> None:
    rule = replace(DRIFTS, lasts=HOUR)
    kept, now = Kept(), 10**9
    for jump in jumps:
        now += jump
        kept = evaluate([rule], measured({COLUMNS: 1}), kept, now=now)
        assert only(kept).since <= now
    kept = evaluate([rule], measured({COLUMNS: 1}), kept, now=now + 3_600)
    assert only(kept).state == "firing"


def channel_after(*steps: tuple[float, float], rule: Rule = DRIFTS) -> list[list[str]]:
    """What a channel that always works is told after each measurement."""
    state, found = AlertState(), list[list[str]]()
    for now, value in steps:
        state = replace(
            state, kept=evaluate([rule], measured({COLUMNS: value}), state.kept, now=now)
        )
        notices = due(state, "team", [rule], now=now)
        found.append([one.status for one in notices])
        if notices:
            state = state.having("team", told(state.of("team"), notices, now=now))
        state = AlertState.from_json(json.loads(json.dumps(state.to_json())))
    return found


def test_a_channel_is_told_once_reminded_and_told_that_it_is_over_once() -> None:
    rule = replace(DRIFTS, repeat=HOUR)
    steps = [(0, 1), (60, 2), (3_599, 1), (3_600, 1), (3_660, 1), (3_700, 0), (3_800, 0)]
    assert channel_after(*steps, rule=rule) == [
        *(["firing"], [], [], ["reminder"], []),
        *(["resolved"], []),
    ]


def test_what_was_over_before_anybody_heard_of_it_is_not_told() -> None:
    first, second = after(DRIFTS, steps=[(0, 1), (60, 0)])
    assert due(AlertState(first), "team", [DRIFTS], now=0)
    assert not due(AlertState(second), "team", [DRIFTS], now=60)


def test_a_new_occurrence_is_told_even_if_the_end_of_the_last_was_not() -> None:
    first, _, third = after(DRIFTS, steps=[(0, 1), (60, 0), (90, 1)])
    knows = told(ChannelState(), due(AlertState(first), "team", [DRIFTS], now=0), now=0)
    state = AlertState(third, {"team": knows})
    (one,) = due(state, "team", [DRIFTS], now=90)
    assert one.status == "firing"
    assert one.alert.id != only(first).id


def test_rules_choose_their_channels_and_a_rule_that_is_gone_is_over() -> None:
    (kept,) = after(DRIFTS, steps=[(0, 1)])
    routed = replace(DRIFTS, channels=("mail",))
    assert not due(AlertState(kept), "team", [routed], now=0)
    notices = due(AlertState(kept), "mail", [routed], now=0)
    state = AlertState(Kept(), {"mail": told(ChannelState(), notices, now=0)})
    assert [one.status for one in due(state, "mail", [], now=1)] == ["resolved"]


def test_a_channel_has_so_many_messages_an_hour() -> None:
    state = ChannelState()
    for at in range(3):
        assert not held_back(state, 3, now=at)
        state = told(state, (), now=at)
    assert held_back(state, 3, now=10)
    assert not held_back(state, 3, now=HOUR + 1)
    assert not held_back(state, 3, now=-10)  # the clock was set back


def test_a_state_of_a_later_version_is_not_read() -> None:
    with pytest.raises(NewerStateError):
        AlertState.from_json({**AlertState().to_json(), "version": 2})


def column(name: str, verdict: Verdict, psi_of: float | None) -> ColumnDrift:
    findings = (Finding("shape", "otherwise", 0.0),) if verdict == "drift" else ()
    return ColumnDrift(
        name, "feature", verdict, findings, 0.5, 0.1, psi_of, 0.0, 0.2, 0.1, 0.0, 0.0, None, (), ()
    )


def test_a_drift_report_says_columns_and_measures() -> None:
    columns = (column("age", "drift", 0.5), column("city", "steady", None))
    found = of_drift(DriftReport(100, 1_000, columns, Limits()))
    assert found[Series.of("drift.columns")] == 1
    assert found[Series.of("drift.share")] == 0.5
    assert found[Series.of("drift.rows")] == 100
    assert found[psi("age")] == 0.5
    assert psi("city") not in found
    assert found[Series.of("drift.alarm", column="age")] == 1
    assert found[Series.of("drift.alarm", column="city")] == 0
    few = of_drift(DriftReport(3, 1_000, (column("age", "too few rows", None),), Limits()))
    assert few == {Series.of("drift.rows"): 3}


def test_an_evaluation_says_metrics_and_how_they_compare() -> None:
    def metrics(value: float) -> dict[str, MetricEstimate]:
        return {"accuracy": MetricEstimate(value, value - 0.01, value + 0.01)}

    evaluation = Evaluation("classification", 1_000, metrics(0.6), None)  # type: ignore[arg-type]  # no curves
    rival = Rival("champion", metrics(0.9), 1_000, "a" * 32)
    compared = compare(evaluation, rival, improvement=0.02, degradation=-0.01)
    found = of_performance(evaluation, [compared])
    assert found[Series.of("performance.accuracy")] == 0.6
    assert found[Series.of("performance.degraded", against="champion")] == 1
    assert found[Series.of("performance.improved", against="champion")] == 0
    key = Series.of("performance.change.accuracy", against="champion")
    assert found[key] == pytest.approx(-1 / 3)


def test_labels_say_the_last_judged_days_metrics_and_those_of_segments() -> None:
    report = judged(InMemory(days(6, 600, 7, wrong_from=3, of="blue")))
    found = of_labels(report)
    assert found[Series.of("labels.degraded")] == 1
    assert found[Series.of("labels.coverage")] == report.coverage.share
    last = report.series("accuracy")[-1].estimate.value
    assert found[Series.of("labels.accuracy")] == last
    assert Series.of("labels.ece") in found
    blue = found[Series.of("labels.accuracy", column="colour", segment="blue")]
    assert blue < found[Series.of("labels.accuracy", column="colour", segment="red")]


def test_features_say_how_stale_they_are() -> None:
    ages = Ages(10, 1.0, 5.0, 90.0, 100.0, 0.2, None)
    views = (
        ViewStatus("user", "behind", "3 versions wait", waiting=3, lag=7_200.0, ages=ages),
        ViewStatus("shop", "unknown", "no version"),
    )
    found = of_features(views)
    assert found[Series.of("features.stale", namespace="user")] == 1
    assert found[Series.of("features.lag_seconds", namespace="user")] == 7_200
    assert found[Series.of("features.age_p95_seconds", namespace="user")] == 90
    assert found[Series.of("features.expired", namespace="user")] == 0.2
    assert Series.of("features.expired", namespace="shop") not in found


@pytest.mark.parametrize(
    "name",
    [
        series.name
        for series in of_features(
            [ViewStatus("a", "fresh", "", ages=Ages(1, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0))]
        )
    ],
)
def test_what_features_measure_can_be_watched(name: str) -> None:
    assert AlertRule.model_validate({"name": "n", "metric": name, "above": 0}).metric == name
