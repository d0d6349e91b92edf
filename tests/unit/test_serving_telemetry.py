"""What is counted comes out as Prometheus reads it."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lodestar.serving.telemetry import Telemetry


def sample(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    text, media = telemetry.render()
    assert media.startswith("text/plain")
    for family in text_string_to_metric_families(text.decode()):
        for found in family.samples:
            if found.name == name and found.labels == labels:
                return found.value
    return None


def test_requests_are_counted_and_timed() -> None:
    telemetry = Telemetry()
    for seconds in (0.001, 0.002, 99.0):
        telemetry.request("/predict", "POST", 200, seconds)
    labels = {"route": "/predict", "method": "POST", "status": "200"}
    assert sample(telemetry, "lodestar_requests_total", **labels) == 3
    assert sample(telemetry, "lodestar_request_seconds_count", route="/predict") == 3
    for bound, count in (("0.001", 1), ("0.0025", 2), ("10.0", 2), ("+Inf", 3)):
        found = sample(telemetry, "lodestar_request_seconds_bucket", route="/predict", le=bound)
        assert found == count


@pytest.mark.parametrize(
    ("call", "name", "labels"),
    [
        (lambda t: t.stage("score", 0.5), "lodestar_stage_seconds_count", {"stage": "score"}),
        (lambda t: t.batch(7), "lodestar_batch_rows_sum", {}),
        (lambda t: t.missing("age"), "lodestar_features_missing_total", {"feature": "age"}),
        (lambda t: t.stale("age"), "lodestar_features_stale_total", {"feature": "age"}),
        (
            lambda t: t.unknown_categories("city"),
            "lodestar_unknown_categories_total",
            {"column": "city"},
        ),
        (
            lambda t: t.feature_age("users", 7.0),
            "lodestar_feature_age_seconds_sum",
            {"namespace": "users"},
        ),
        (lambda t: t.shed("queue"), "lodestar_shed_total", {"reason": "queue"}),
        (lambda t: t.online_failed(), "lodestar_online_failures_total", {}),
        (lambda t: t.queue(7), "lodestar_queue", {}),
        (lambda t: t.breaker(is_open=True), "lodestar_breaker_open", {}),
    ],
)
def test_everything_else_is_counted_too(call, name: str, labels: dict[str, str]) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 -- lambdas above
    telemetry = Telemetry()
    call(telemetry)
    assert sample(telemetry, name, **labels) in {1, 7}


def test_a_role_has_one_model_at_a_time() -> None:
    telemetry = Telemetry()
    telemetry.model("champion", "one", "d1")
    telemetry.model("champion", "two", "d2")
    telemetry.model("shadow", "three", "d3")
    telemetry.model("shadow", None)
    found = {
        (run, role): sample(telemetry, "lodestar_model_info", run_id=run, digest=digest, role=role)
        for run, digest, role in (
            ("one", "d1", "champion"),
            ("two", "d2", "champion"),
            ("three", "d3", "shadow"),
        )
    }
    assert found == {("one", "champion"): 0, ("two", "champion"): 1, ("three", "shadow"): 0}


NUMBERS = st.floats(-2, 2) | st.sampled_from([0.0, 0.5, 1.0, math.nan])


@given(st.lists(NUMBERS, max_size=40))
def test_predictions_lie_in_the_buckets_that_their_values_say(values: list[float]) -> None:
    telemetry = Telemetry(predictions=(0.0, 0.5, 1.0))
    telemetry.predicted("run", values)
    numbers = [value for value in values if not math.isnan(value)]
    for bound in ("0.0", "0.5", "1.0", "+Inf"):
        found = sample(telemetry, "lodestar_prediction_bucket", run_id="run", le=bound)
        assert found == sum(value <= float(bound) for value in numbers)
    total = sample(telemetry, "lodestar_prediction_sum", run_id="run")
    assert total == pytest.approx(sum(numbers))


def test_labels_are_counted_by_name() -> None:
    telemetry = Telemetry()
    telemetry.predicted("run", [0.1, 0.2, 0.9], ["no", "no", "yes"])
    assert sample(telemetry, "lodestar_predictions_total", run_id="run", label="no") == 2
    assert sample(telemetry, "lodestar_predictions_total", run_id="run", label="yes") == 1


def test_two_of_them_do_not_share_figures() -> None:
    one, other = Telemetry(), Telemetry()
    one.shed("queue")
    assert sample(other, "lodestar_shed_total", reason="queue") is None


def test_labels_cannot_break_the_format() -> None:
    telemetry = Telemetry()
    telemetry.unknown_categories('a"\n\\b')
    text = telemetry.render()[0].decode()
    assert re.search(r'column="a\\"\\n\\\\b"', text)
    assert sample(telemetry, "lodestar_unknown_categories_total", column='a"\n\\b') == 1
