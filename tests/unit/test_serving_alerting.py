"""What a server counts, as measurements for alert rules."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.alert_servers import hook

from lodestar.core.alerts.readings import Series
from lodestar.factory.alerts import Alerting
from lodestar.serving.access_log import Log
from lodestar.serving.alerting import Figures, ServedAlerts, ServedRole, of_figures, of_windows
from lodestar.serving.telemetry import Telemetry
from lodestar.settings.loading import load_config

CHAMPION = ServedRole("champion", "run one", "shop")
CHALLENGER = ServedRole("challenger", "run two", "shop")


def figures(telemetry: Telemetry, at: float) -> Figures:
    return Figures.of(telemetry.families(), at)


def value(found: dict[Series, float], name: str) -> float:
    return found[Series.of(name)]


def test_rates_are_of_the_time_since_the_last_look() -> None:
    telemetry = Telemetry()
    for _ in range(100):
        telemetry.request("/predict", "POST", 503, 5.0)
    before = figures(telemetry, 100.0)
    for status in [200] * 17 + [422, 500, 503]:
        telemetry.request("/predict", "POST", status, 0.004)
    for _ in range(50):
        telemetry.request("/health/ready", "GET", 503, 0.0001)
    telemetry.shed("queue")
    telemetry.online_failed()
    found = of_figures(figures(telemetry, 110.0), before)
    assert value(found, "serve.requests_per_second") == 2
    assert value(found, "serve.error_rate") == 0.1
    assert value(found, "serve.shed_per_second") == 0.1
    assert value(found, "serve.online_failures_per_second") == 0.1
    assert value(found, "serve.latency_p99_seconds") == pytest.approx(0.005, rel=0.01)


def test_without_requests_there_is_neither_error_rate_nor_latency() -> None:
    telemetry = Telemetry()
    telemetry.request("/predict", "POST", 500, 1.0)
    now = figures(telemetry, 1.0)
    found = of_figures(now, Figures(0.0, now.samples))
    assert value(found, "serve.requests_per_second") == 0
    assert Series.of("serve.error_rate") not in found
    assert Series.of("serve.latency_p99_seconds") not in found


def test_slower_than_every_bucket_is_the_largest_bound() -> None:
    telemetry = Telemetry()
    before = figures(telemetry, 0.0)
    telemetry.request("/predict", "POST", 200, 60.0)
    found = of_figures(figures(telemetry, 1.0), before)
    assert value(found, "serve.latency_p99_seconds") == 10.0


def test_a_runs_window_is_its_own() -> None:
    telemetry = Telemetry()
    telemetry.model("champion", "run one", "a")
    telemetry.model("challenger", "run two", "b")
    telemetry.drift("run one", 1, 500)
    telemetry.column_drift("run one", "age", 0.4)
    now = figures(telemetry, 0.0)
    assert of_windows(now, "run one") == {
        Series.of("drift.columns"): 1,
        Series.of("drift.rows"): 500,
        Series.of("drift.psi", column="age"): 0.4,
    }
    assert of_windows(now, "run two") == {}


def alerting(tmp_path: Path, port: int) -> Alerting:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/base.yaml").write_text(
        "environment: {augmenter: pass_through, serving: allowed}\n"
        "data: {adapter: duckdb, root: data, snapshots: s}\n"
        "mlflow: {experiment_name: t, tracking_uri: 'sqlite:///m.db', artifact_root: a}\n"
        "model: {allowed_modules: ['*']}\n"
        "output: {root: outputs}\n"
        "alerts:\n"
        "  rules:\n"
        "  - {name: errors, metric: serve.error_rate, above: 0.05, severity: critical}\n"
        "  - {name: drifts, metric: drift.columns, above: 0, where: {role: champion}}\n"
        f"  channels: {{team: {{kind: webhook, url: 'http://127.0.0.1:{port}/x'}}}}\n"
        "  timeout: 3\n",
        encoding="utf-8",
    )
    return Alerting(load_config(tmp_path, None, variables={}))


def lines(read: int) -> list[dict[str, object]]:
    return [json.loads(line) for line in os.read(read, 1_000_000).splitlines()]


def test_a_server_judges_tells_counts_and_logs(tmp_path: Path) -> None:
    read, write = os.pipe()
    log, telemetry = Log(write), Telemetry()
    telemetry.model("champion", "run one", "a")
    telemetry.model("challenger", "run two", "b")
    with hook([200, 500]) as at:
        alerts = ServedAlerts(alerting(tmp_path, at.port), telemetry, log, seconds=1)
        roles = [CHAMPION, CHALLENGER]
        assert alerts.look(roles) is None
        telemetry.request("/predict", "POST", 500, 0.1)
        telemetry.drift("run two", 3, 500)
        outcome = alerts.look(roles)
        assert outcome is not None
        assert [one.rule for one in outcome.begun] == ["errors"]
        assert at.alerts()[0]["labels"] == {"recipe": "shop", "source": "serve-api"}
        telemetry.drift("run one", 1, 500)
        outcome = alerts.look(roles)
        assert outcome is not None
        assert [(one.rule, one.run_id) for one in outcome.begun] == [("drifts", "run one")]
        assert len(outcome.firing) == 2  # nobody asks, so nobody knows that the errors are over
    text = telemetry.render()[0].decode()
    assert 'lodestar_alert_deliveries_total{channel="team",result="delivered"} 1.0' in text
    assert 'lodestar_alert_deliveries_total{channel="team",result="failed"} 1.0' in text
    assert 'lodestar_alerts_firing{severity="critical"} 1.0' in text
    assert 'lodestar_alerts_firing{severity="warning"} 1.0' in text
    log.close()
    events = [line["event"] for line in lines(read)]
    assert events == ["alert", "alert", "alert channel failed"]
    os.close(read)
    os.close(write)


def test_only_the_worker_that_leads_looks_and_a_failure_ends_nothing(tmp_path: Path) -> None:
    read, write = os.pipe()
    log = Log(write)
    alerts = ServedAlerts(alerting(tmp_path, 1), Telemetry(), log, seconds=0.001)
    asked = 0

    def leads() -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise OSError("no such lock")
        return asked > 3

    looked = asyncio.Event()

    def roles() -> list[ServedRole]:
        looked.set()
        return []

    async def run() -> None:
        task = asyncio.create_task(alerts.run(leads, roles))
        await asyncio.wait_for(looked.wait(), 30)
        task.cancel()

    asyncio.run(run())
    assert asked == 4
    log.close()
    assert [line["event"] for line in lines(read)] == ["alerts were not judged"]
    os.close(read)
    os.close(write)


def test_a_run_that_is_served_no_more_has_no_window_and_returns_without_one() -> None:
    telemetry = Telemetry()
    for role, run in (("champion", "run one"), ("shadow", "run two")):
        telemetry.model(role, run, "a")
        telemetry.drift(run, 1, 500)
        telemetry.column_drift(run, "age", 0.4)

    def shown(what: Callable[[str], bool] = lambda _: True) -> set[str]:
        text = telemetry.render()[0].decode().splitlines()
        return {
            line.split("}")[0] for line in text if line.startswith("lodestar_drift") and what(line)
        }

    assert len(shown()) == 6
    telemetry.model("champion", "run three", "c")
    assert all('run_id="run two"' in line for line in shown())
    assert len(shown()) == 3
    telemetry.model("champion", "run one", "a")
    assert not shown(lambda line: "run one" in line)
    telemetry.drift("run one", 0, 100)
    assert shown(lambda line: "run one" in line) == {
        'lodestar_drifted_columns{run_id="run one"',
        'lodestar_drift_window_rows{run_id="run one"',
    }


def test_a_window_that_is_over_after_its_run_has_gone_is_not_shown() -> None:
    telemetry = Telemetry()
    telemetry.model("champion", "run one", "a")
    telemetry.model("champion", "run two", "b")
    telemetry.drift("run one", 1, 500)  # a thread was at it
    text = telemetry.render()[0].decode()
    assert 'lodestar_drifted_columns{run_id="run one"}' not in text


WORKER = """
from lodestar.serving.telemetry import Telemetry
telemetry = Telemetry()
telemetry.model("champion", "run one", "a")
telemetry.drift("run one", 5, 500)
telemetry.column_drift("run one", "age", 0.9)
telemetry.model("champion", "run two", "b")
telemetry.drift("run two", 1, 100)
print(telemetry.render()[0].decode())
"""


def test_workers_that_share_their_figures_forget_too(tmp_path: Path) -> None:
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", WORKER],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert 'lodestar_drifted_columns{run_id="run two"} 1.0' in found
    assert 'lodestar_model_info{digest="a",role="champion",run_id="run one"} 0.0' in found
    assert "drift_psi{" not in found
    assert 'drifted_columns{run_id="run one"}' not in found
