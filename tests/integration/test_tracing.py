"""Spans of requests, taken over from the client and given on, as a real OTLP receiver gets them."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from tests.otlp_receiver import Receiver, receiver
from tests.searching import Script, between, metric_of, searching
from tests.served_versions import Scorer, lane, row, wine
from tests.serving_app import made_edge

from lodestar.adapters.otlp import Traces
from lodestar.core.tuning.result import SearchLimits
from lodestar.execution.traced import traced_trials
from lodestar.interface.execution import TrialTask
from lodestar.serving.access_log import Log
from lodestar.serving.edge import Edge
from lodestar.serving.fleet import Fleet
from lodestar.serving.http import Request
from lodestar.serving.predict import Predictor
from lodestar.serving.tracing import RequestTraces, Stages, spanned
from lodestar.serving.version import ServedVersion
from lodestar.settings.serving import Serving
from lodestar.settings.tracing import Tracing

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def at() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


def traces(at: Receiver, **section: float) -> Traces:
    made = Tracing(enabled=True, endpoint=at.url, **section)  # type: ignore[arg-type]  # sample alone
    return Traces(made, share=1.0, service="test")


@contextmanager
def edge(at: Receiver, **section: float) -> Iterator[tuple[Edge, list[dict[str, object]]]]:
    """The edge, and the log, which is there after the block, as the spans are."""
    read, write = os.pipe()
    log, lines = Log(write), list[dict[str, object]]()
    made = RequestTraces(traces(at, **section))
    yield made_edge(Serving(), log, made), lines
    assert made.close()
    log.close()
    os.close(write)
    with os.fdopen(read) as text:
        lines += [json.loads(line) for line in text]


def asked(edge: Edge, method: str, path: str, **options: object) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=edge)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, **options)  # type: ignore[arg-type]  # httpx's

    return asyncio.run(ask())


def test_a_clients_trace_goes_on_and_is_in_log_and_answer(at: Receiver) -> None:
    headers = {"traceparent": PARENT, "x-request-id": "mine"}
    with edge(at) as (made, lines):
        found = asked(made, "POST", "/predict", json={}, headers=headers)
        assert found.status_code == 200
    (span,) = at.spans
    assert (span.name, span.kind, span.trace_id, span.parent) == ("POST /predict", 2, TRACE, SPAN)
    assert span.said == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "lodestar.request_id": "mine",
        "lodestar.run_id": "run-1",
    }
    assert not span.failed
    assert found.headers["traceresponse"] == f"00-{TRACE}-{span.span_id}-01"
    assert lines[0]["trace_id"] == TRACE
    assert lines[0]["request_id"] == "mine"


def test_the_application_behind_the_edge_goes_on_from_our_span(at: Receiver) -> None:
    with edge(at) as (made, _):
        found = asked(made, "GET", "/items/3", headers={"traceparent": PARENT}).json()
    (span,) = at.spans
    assert found["traceparent"] == f"00-{TRACE}-{span.span_id}-01"
    assert span.said["http.route"] == "/items/{number}"


@pytest.mark.parametrize(
    "given", ["", "nonsense", "00-" + "0" * 32 + f"-{SPAN}-01", f"ff-{TRACE}-{SPAN}-01", "é" * 60]
)
def test_a_header_that_is_none_begins_a_trace_of_its_own(at: Receiver, given: str) -> None:
    headers = {"traceparent": given.encode("latin-1")}
    with edge(at) as (made, _):
        assert asked(made, "POST", "/predict", json={}, headers=headers).status_code == 200
    (span,) = at.spans
    assert span.trace_id != TRACE
    assert not span.parent


def test_failures_of_the_server_are_failed_spans_and_those_of_clients_are_not(at: Receiver) -> None:
    with edge(at) as (made, _):
        for does in ("bug", "problem", "external"):
            asked(made, "POST", "/predict", json={"do": does})
        asked(made, "GET", "/health/live")
    assert [(span.said["http.response.status_code"], span.failed) for span in at.spans] == [
        *((500, True), (422, False), (503, True))
    ]


def test_what_is_not_sampled_is_not_sent_and_has_an_id_all_the_same(at: Receiver) -> None:
    with edge(at, sample=0.0) as (made, lines):
        found = asked(made, "POST", "/predict", json={})
        asked(made, "POST", "/predict", json={}, headers={"traceparent": PARENT})
    assert [span.trace_id for span in at.spans] == [TRACE]
    assert not int(found.headers["traceresponse"][-2:], 16) & 1
    assert lines[0]["trace_id"] == found.headers["traceresponse"][3:35]


def test_without_tracing_nothing_is_added(at: Receiver) -> None:
    read, write = os.pipe()
    log = Log(write)
    headers = {"traceparent": PARENT}
    found = asked(made_edge(Serving(), log), "POST", "/predict", json={}, headers=headers)
    assert "traceresponse" not in found.headers
    log.close()
    os.close(write)
    with os.fdopen(read) as text:
        assert "trace_id" not in json.loads(text.read())
    assert not at.spans


class Asked:
    """A fleet of one version that traces."""

    def __init__(self) -> None:
        served = lane("a", Scorer(0.9))
        served.version._traced = True
        self.fleet = Fleet(served)


def request(body: object, made: Traces | None) -> Request:
    span = None if made is None else made.begin("POST /predict")
    return Request("POST", "/predict", (), json.dumps(body).encode(), "mine", span=span)


def fields(at: int) -> dict[str, object]:
    names = [field.name for field in Asked().fleet.champion.version.request.fields]
    return dict(zip(names, row(at), strict=True))


def test_requests_that_are_answered_together_have_their_own_parts(at: Receiver) -> None:
    made, predictor = traces(at), Predictor(Asked(), most_rows=100)
    sent = [request(fields(number), made) for number in range(2)]
    many = request({"rows": [fields(number) for number in range(3)]}, made)
    bad = request({"no": "field"}, made)

    async def ask() -> None:
        await asyncio.gather(*map(predictor.one, sent), predictor.many(many))
        with pytest.raises(Exception, match="field"):
            await predictor.one(bad)

    asyncio.run(ask())
    for one in (*sent, many, bad):
        assert one.span is not None
        one.span.end()
    assert made.close(seconds=10)
    roots = [span for span in at.spans if not span.parent]
    assert [at.children(span) for span in roots] == [
        *(["parse", "predict"], ["parse", "predict"], ["parse", "predict"], ["parse"])
    ]
    rows = sorted(
        (span.said["lodestar.rows"], span.said["lodestar.batch_rows"])
        for span in at.named("predict")
    )
    assert rows == [(1, 2), (1, 2), (3, 3)]
    assert [span.failed for span in at.named("parse")] == [False, False, False, True]


def test_a_version_that_reads_features_says_how_long_that_took(at: Receiver) -> None:
    made = traces(at)
    span = made.begin("POST /predict")
    Stages(1.0, 1.25, 1.5, reads=True).tell([spanned(("a",), span), ("b",)])
    span.end()
    assert made.close(seconds=10)
    (read,), (predict,) = at.named("read features"), at.named("predict")
    assert read.ended - read.began == pytest.approx(250_000_000, abs=10)
    assert predict.began == read.ended
    assert read.said == {"lodestar.rows": 1, "lodestar.batch_rows": 2}


def test_rows_that_know_a_span_are_rows_like_others(at: Receiver) -> None:
    made = traces(at)
    one = spanned(row(3), made.begin("x"))
    assert one == row(3)
    version: ServedVersion = lane("a", Scorer(0.9)).version
    (plain,), (known,) = (asyncio.run(version.answer([each])) for each in (row(3), one))
    assert plain == known
    assert wine().recipe_name
    made.close(seconds=10)


def test_a_server_without_tracing_does_not_import_what_traces() -> None:
    code = (
        "import sys; import lodestar.serving.worker, lodestar.cli.app, lodestar.cli.tracing; "
        "heavy = ('opentelemetry.sdk', 'opentelemetry.exporter'); "
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.strip() == "[]"


def curve(task: TrialTask) -> dict[int, float]:
    return {step: task.hyperparameters["x"] - 1 + step / 1_000 for step in (20, 40, 60)}


def played(task: TrialTask) -> float | str:
    """The first trial fails, which none can be pruned before; the others are worth what is found."""
    return "ValueError: C4NARY" if task.number == 0 else float(task.hyperparameters["x"])


def test_a_searchs_trials_are_parts_of_its_span_and_say_what_came_of_them(at: Receiver) -> None:
    limits = SearchLimits(n_trials=20, seconds=60.0, candidates=3, splits=2, pruner="MedianPruner")
    made = traces(at)
    root = made.begin("searching")
    executor = traced_trials(Script(played, curve=curve), root)
    found = searching(executor, {"x": between(0.0, 1.0)}, metric_of("roc_auc"), limits).run()
    root.end()
    assert made.close(seconds=10)
    (search,) = at.named("searching")
    trials = {span.said["lodestar.trial"]: span for span in at.named("trial")}
    assert sorted(trials) == list(range(20))
    assert {record.state for record in found.history} == {"complete", "pruned", "failed"}
    for record in found.history:
        span = trials[record.number]
        assert span.parent == search.span_id
        assert search.began <= span.began <= span.ended <= search.ended
        assert span.said.get("lodestar.value") == record.value
        assert span.said["lodestar.state"] == record.state
        assert span.said["lodestar.seconds"] == record.seconds
        assert span.failed == (record.state == "failed")
    scores = sum(len(finalist.scores) for finalist in found.finalists)
    assert len(at.named("finalist")) == scores
    assert "C4NARY" not in str(at.spans)


def test_trials_that_nobody_traces_are_run_by_their_own_executor() -> None:
    executor = Script(played)
    assert traced_trials(executor, None) is executor
