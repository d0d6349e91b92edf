"""Alerts and traces beside the commands' results: told, shown, and never in the way."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.alert_servers import Hook, eventually, hook, nobody_there
from tests.conftest import SMALL, Lodestar, Trained, copy_of
from tests.otlp_receiver import receiver
from tests.served_projects import served_run, write_served_config

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"

CONFIG = """\
performance_monitoring: {enabled: true, baseline_metrics: {accuracy: 0.99999}}
alerts:
  rules:
  - {name: columns drift, metric: drift.columns, above: 0, severity: critical}
  - {name: not held, metric: performance.degraded, above: 0, where: {against: baseline}}
  - {name: too poor, metric: performance.accuracy, below: 0.999999}
  channels:
    team: {kind: webhook, url: "${TEAM_HOOK}", attempt_seconds: 3}
    log: {kind: log}
  timeout: 3
"""


@pytest.fixture(scope="module")
def studio(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """A project with one trained run, and its rows as they were and as they may become."""
    project = lodestar.stocked(
        copy_of(sample_project, tmp_path_factory.mktemp("alerts") / "project")
    )
    (project / "config/watched.yaml").write_text(CONFIG)
    env = watched(f"http://127.0.0.1:{nobody_there()}/T0KEN-CANARY")
    done = lodestar("train", "-r", "breast_cancer", *SMALL, "--json", cwd=project, env=env)
    table = pq.read_table(project / "data/breast_cancer.parquet")
    place = table.schema.get_field_index("mean_radius")
    later = table.set_column(place, "mean_radius", pc.add(table.column("mean_radius"), 3.0))
    pq.write_table(later, project / "data/moved.parquet")
    return Trained(project, done.succeeded().json)


@pytest.fixture
def at() -> Iterator[Hook]:
    with hook() as found:
        yield found


@pytest.fixture
def fresh(studio: Trained) -> Trained:
    """The same, and nobody was told anything yet."""
    shutil.rmtree(studio.project / ".lodestar/alerts", ignore_errors=True)
    (studio.project / "logs/alerts.jsonl").unlink(missing_ok=True)
    return studio


def watched(url: str) -> dict[str, str]:
    return {"APP_ENV": "watched", "TEAM_HOOK": url}


def test_monitor_tells_a_drift_once_and_its_end(
    lodestar: Lodestar, fresh: Trained, at: Hook
) -> None:
    def monitor(data: str, *more: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 -- Finished
        words = ("monitor", "--run-id", fresh.run_id, "--data", data, *more)
        return lodestar(*words, cwd=fresh.project, env=watched(at.url))

    shown = monitor("data/moved.parquet").succeeded()
    assert "alert columns drift: drift.columns{recipe=breast_cancer, source=monitor} is" in (
        shown.stderr
    )
    assert "told  team: 1 alert" in shown.stderr
    again = monitor("data/moved.parquet", "--json", "--fail-on-drift")
    assert again.code == 7
    assert again.json["alerts"]["begun"] == []
    assert [one["rule"] for one in again.json["alerts"]["firing"]] == ["columns drift"]
    listed = lodestar("alerts", "list", "--json", cwd=fresh.project, env=watched(at.url))
    (alert,) = listed.succeeded().json["alerts"]
    assert (alert["state"], alert["run_id"]) == ("firing", fresh.run_id)
    over = monitor("data/breast_cancer.parquet", "--json").succeeded()
    assert [one["rule"] for one in over.json["alerts"]["resolved"]] == ["columns drift"]
    assert over.json["alerts"]["channels"] == [
        {"channel": name, "alerts": 1, "delivered": True, "problem": None, "remark": None}
        for name in ("team", "log")
    ]
    assert [one["status"] for one in at.alerts()] == ["firing", "resolved"]
    said = (fresh.project / "logs/alerts.jsonl").read_text().splitlines()
    assert len(said) == 2
    shown = lodestar("alerts", "list", cwd=fresh.project, env=watched(at.url)).succeeded()
    assert "nothing fires (3 rules)" in shown.stderr


def test_train_evaluate_and_batch_inference_are_watched(
    lodestar: Lodestar, fresh: Trained, at: Hook
) -> None:
    trained = fresh.json["alerts"]
    assert {one["rule"] for one in trained["firing"]} == {"too poor", "not held"}
    assert "the connection was refused" in trained["channels"][0]["problem"]
    for command in ("evaluate", "batch-inference"):
        words = (command, "--run-id", fresh.run_id, "--json")
        done = lodestar(*words, cwd=fresh.project, env=watched(at.url)).succeeded()
        assert done.json["alerts"]["problem"] is None
    found = {(one["rule"], one["labels"]["source"]) for one in at.alerts()}
    assert found >= {("too poor", "evaluate"), ("not held", "evaluate")}


def test_a_channel_that_is_down_changes_neither_result_nor_exit_code(
    lodestar: Lodestar, fresh: Trained
) -> None:
    env = watched(f"http://127.0.0.1:{nobody_there()}/T0KEN-CANARY")
    words = ("monitor", "--run-id", fresh.run_id, "--data", "data/moved.parquet")
    done = lodestar(*words, "--json", cwd=fresh.project, env=env).succeeded()
    assert done.json["verdict"] == "drift"
    team, log = done.json["alerts"]["channels"]
    assert "the connection was refused" in team["problem"]
    assert log["delivered"]
    shown = lodestar(*words, cwd=fresh.project, env=env).succeeded()
    assert "note: channel team: the connection was refused" in shown.stderr
    assert "1 alerts still fire" in shown.stderr
    listed = lodestar("alerts", "list", cwd=fresh.project, env=env).succeeded()
    assert "note: channel team: the connection was refused" in listed.stderr
    for one in (done, shown, listed):
        assert "CANARY" not in one.stdout + one.stderr
    state = (fresh.project / ".lodestar/alerts/watched.json").read_text()
    assert "CANARY" not in state


def test_channels_can_be_tried_out(lodestar: Lodestar, fresh: Trained, at: Hook) -> None:
    done = lodestar("alerts", "test", cwd=fresh.project, env=watched(at.url)).succeeded()
    assert "✓ team: took the message" in done.stderr
    assert at.alerts()[0]["status"] == "test"
    at.statuses = [404]
    done = lodestar("alerts", "test", "--json", cwd=fresh.project, env=watched(at.url))
    assert done.code == 4
    assert [one["problem"] for one in done.json["channels"]] == ["HTTP status 404", None]
    words = ("alerts", "test", "--channel", "tem")
    lodestar(*words, cwd=fresh.project, env=watched(at.url)).refused(2, "did you mean 'team'?")


def test_without_rules_nothing_is_said_and_nothing_is_kept(
    lodestar: Lodestar, fresh: Trained
) -> None:
    words = ("monitor", "--run-id", fresh.run_id, "--data", "data/moved.parquet", "--json")
    assert "alerts" not in lodestar(*words, cwd=fresh.project).succeeded().json
    assert not (fresh.project / ".lodestar/alerts").exists()
    shown = lodestar("alerts", "list", cwd=fresh.project).succeeded()
    assert "no rules: the config has none in alerts.rules" in shown.stderr


def test_a_commands_stages_are_spans_of_the_schedulers_trace(
    lodestar: Lodestar, fresh: Trained
) -> None:
    with receiver() as at:
        text = f"tracing: {{enabled: true, endpoint: '{at.url}', headers: {{X-Key: '${{KEY}}'}}}}\n"
        (fresh.project / "config/traced.yaml").write_text(text)
        env = {"APP_ENV": "traced", "KEY": "C4NARY", "TRACEPARENT": PARENT}
        words = ("batch-inference", "--run-id", fresh.run_id, "--json")
        lodestar(*words, cwd=fresh.project, env=env).succeeded()
        (root,) = at.named("lodestar batch-inference")
        assert (root.trace_id, root.parent) == (TRACE, SPAN)
        assert root.said["lodestar.run_id"] == fresh.run_id
        assert root.said["lodestar.rows"] == 569
        assert root.resource["service.name"] == "lodestar"
        assert at.children(root) == ["verifying", "scoring"]
        assert at.named("scoring")[0].said["lodestar.rows"] == 569
        assert at.paths == ["/v1/traces"]
        assert at.headers[0]["x-key"] == "C4NARY"
        env |= {"OTEL_SERVICE_NAME": "nightly"}
        bad = ("evaluate", "--run-id", fresh.run_id, "--data", "data/none.parquet")
        done = lodestar(*bad, cwd=fresh.project, env=env).refused(3)
        assert "C4NARY" not in done.stderr
        (root,) = at.named("lodestar evaluate")
        assert root.failed
        assert root.resource["service.name"] == "nightly"


def test_a_search_and_a_check_for_drift_have_spans_too(lodestar: Lodestar, fresh: Trained) -> None:
    with receiver() as at:
        text = (
            f"tracing: {{enabled: true, endpoint: '{at.url}'}}\n"
            "hyperparameter_tuning: {enabled: true, parallelization: {n_jobs: 2}}\n"
        )
        (fresh.project / "config/searching.yaml").write_text(text)
        env = {"APP_ENV": "searching"}
        few = ("--set", "hyperparameter_tuning.n_trials=3")
        words = ("train", "-r", "breast_cancer", *few, "--json")
        done = lodestar(*words, cwd=fresh.project, env=env).succeeded()
        (root,) = at.named("lodestar train")
        assert at.children(root) == [
            *("checking", "reading", "preparing", "searching", "training", "looking", "saving")
        ]
        (search,) = at.named("searching")
        trials = [span for span in at.spans if span.parent == search.span_id]
        assert {span.name for span in trials} == {"trial", "finalist", "smaller fit"}
        own = [span for span in trials if span.name == "trial"]
        assert sorted(span.said["lodestar.trial"] for span in own) == [0, 1, 2]
        states = [span.said["lodestar.state"] for span in own]
        assert states.count("complete") == done.json["tuning"]["completed"]
        words = ("monitor", "--run-id", fresh.run_id, "--data", "data/moved.parquet", "--json")
        lodestar(*words, cwd=fresh.project, env=env).succeeded()
        (root,) = at.named("lodestar monitor")
        assert at.children(root) == ["verifying", "comparing"]
        assert root.said["lodestar.run_id"] == fresh.run_id
        assert root.said["lodestar.rows"] == 569


def test_a_receiver_that_is_away_is_a_note(lodestar: Lodestar, fresh: Trained) -> None:
    text = "tracing: {enabled: true}\n"
    (fresh.project / "config/away.yaml").write_text(text)
    env = {
        "APP_ENV": "away",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{nobody_there()}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    words = ("batch-inference", "--run-id", fresh.run_id)
    done = lodestar(*words, cwd=fresh.project, env=env).succeeded()
    assert "note: traces were not delivered" in done.stderr
    assert "569 rows scored" in done.stderr


def test_a_served_model_traces_its_requests_and_judges_its_figures(
    fresh: Trained, at: Hook
) -> None:
    with receiver() as traces:
        text = (
            "environment: {serving: allowed}\n"
            "serving: {native: false}\n"
            f"tracing: {{enabled: true, endpoint: '{traces.url}', sample: 0}}\n"
            "alerts:\n"
            "  rules: [{name: asked, metric: serve.requests_per_second, above: 0}]\n"
            f"  channels: {{team: {{kind: webhook, url: '{at.url}'}}}}\n"
            "  check_seconds: 0.2\n"
        )
        env = dict(write_served_config(fresh.project, "served", text))
        env["OTEL_BSP_SCHEDULE_DELAY"] = "50"
        row = pq.read_table(fresh.project / "data/breast_cancer.parquet").drop_columns("diagnosis")
        body = row.slice(0, 1).to_pylist()[0]
        with served_run(fresh.project, fresh.run_id, env=env) as server:
            asked = server.post(body, headers={"traceparent": PARENT, "x-request-id": "mine"})
            assert asked.status_code == 200, asked.text
            assert server.get("/metadata", headers={"traceparent": PARENT}).status_code == 200
            unsampled = server.post(body)
            eventually(lambda: len(traces.spans) >= 4)
            # Asked again and again: its figures are of the time since it looked first.
            eventually(lambda: server.post(body).status_code == 200 and len(at.posted) >= 1)
            # The channel has it before the server has its answer, and counts it.
            delivered = 'lodestar_alert_deliveries_total{channel="team",result="delivered"}'
            eventually(lambda: delivered in server.get("/metrics").text)
            eventually(lambda: '"event": "alert", "rule": "asked"' in server.says())
            eventually(lambda: '"request_id":"mine"' in server.says())
            (line,) = (json.loads(one) for one in server.says().splitlines() if '"mine"' in one)
        (span,) = traces.named("POST /predict")
        assert (span.trace_id, span.parent, span.kind) == (TRACE, SPAN, 2)
        assert traces.children(span) == ["parse", "predict"]
        assert span.said["lodestar.run_id"] == fresh.run_id
        assert span.said["lodestar.request_id"] == "mine"
        assert span.said["http.response.status_code"] == 200
        assert span.resource["service.name"] == "lodestar-serve"
        assert asked.headers["traceresponse"] == f"00-{TRACE}-{span.span_id}-01"
        assert line["trace_id"] == TRACE
        parts = [one for one in traces.spans if one.parent == span.span_id]
        assert all(span.began <= one.began <= one.ended <= span.ended for one in parts)
        assert "/metadata" in {one.said.get("http.route") for one in traces.spans}
        # Begun here, and not sampled: it has an id for the log, and no span is sent.
        assert not int(unsampled.headers["traceresponse"][-2:], 16) & 1
        assert unsampled.headers["traceresponse"][3:35] not in {
            one.trace_id for one in traces.spans
        }
    assert at.alerts()[0]["labels"] == {"recipe": "breast_cancer", "source": "serve-api"}
