"""The shipped alert rules: read by Prometheus's own tool, and each fires on what it is there for."""

import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.conftest import Lodestar

from lodestar.deploy.dashboard import dashboard, expressions
from lodestar.serving.telemetry import Telemetry

PLACE = files("lodestar.deploy") / "prometheus"
WHO = 'job="lodestar", instance="one:8000"'
SERVED = {f'lodestar_requests_total{{{WHO}, status="200"}}': "0+100x60"}
ROWS = {f"lodestar_batch_rows_sum{{{WHO}}}": "0+100x60"}
# Alert → series, in steps of 15 s, on which it fires within a quarter of an hour.
FIRES = {
    "LodestarDown": {f"up{{{WHO}}}": "0x60"},
    "LodestarErrors": SERVED | {f'lodestar_requests_total{{{WHO}, status="500"}}': "0+3x60"},
    "LodestarRefusals": SERVED | {f'lodestar_requests_total{{{WHO}, status="422"}}': "0+20x60"},
    "LodestarSlow": {
        f'lodestar_request_seconds_bucket{{{WHO}, route="/predict", le="{bound}"}}': series
        for bound, series in (("0.25", "0+90x60"), ("1.0", "0+100x60"), ("+Inf", "0+100x60"))
    },
    "LodestarSheds": {f'lodestar_shed_total{{{WHO}, reason="queue"}}': "0+5x60"},
    "LodestarOnlineStoreDown": {f"lodestar_breaker_open{{{WHO}}}": "1x60"},
    "LodestarFeaturesMissing": ROWS
    | {f'lodestar_features_missing_total{{{WHO}, feature="ltv"}}': "0+20x60"},
    "LodestarFeaturesStale": ROWS
    | {f'lodestar_features_stale_total{{{WHO}, feature="ltv"}}': "0+20x60"},
    "LodestarUnknownCategories": ROWS
    | {f'lodestar_unknown_categories_total{{{WHO}, column="brand"}}': "0+20x60"},
    "LodestarDrift": {
        f'lodestar_drifted_columns{{{WHO}, run_id="a"}}': "2x60",
        f'lodestar_model_info{{{WHO}, run_id="a", role="champion"}}': "1x60",
    },
    "LodestarRolledBack": {
        f'lodestar_rollbacks_total{{{WHO}, reason="errors"}}': "0x55 1x5",
    },
    "LodestarSwapRefused": {
        f'lodestar_swaps_total{{{WHO}, cause="swap", result="refused"}}': "0x55 1x5",
    },
    "LodestarPredictionLogDrops": {f"lodestar_prediction_log_dropped_total{{{WHO}}}": "0+5x60"},
}
QUIET = {
    f"up{{{WHO}}}": "1x60",
    **SERVED,
    **ROWS,
    f'lodestar_requests_total{{{WHO}, status="500"}}': "0+1x60",
    f'lodestar_requests_total{{{WHO}, status="422"}}': "0+5x60",
    f'lodestar_request_seconds_bucket{{{WHO}, route="/predict", le="0.01"}}': "0+100x60",
    f'lodestar_request_seconds_bucket{{{WHO}, route="/predict", le="+Inf"}}': "0+100x60",
    # A drain turns away whoever still comes, and asking for the figures takes as long as it takes.
    f'lodestar_shed_total{{{WHO}, reason="draining"}}': "0+50x60",
    f'lodestar_request_seconds_bucket{{{WHO}, route="/metadata", le="0.01"}}': "0x60",
    f'lodestar_request_seconds_bucket{{{WHO}, route="/metadata", le="+Inf"}}': "0+100x60",
    f"lodestar_breaker_open{{{WHO}}}": "0x60",
    f'lodestar_features_missing_total{{{WHO}, feature="ltv"}}': "0+2x60",
    f'lodestar_features_stale_total{{{WHO}, feature="ltv"}}': "0+2x60",
    f'lodestar_unknown_categories_total{{{WHO}, column="brand"}}': "0+2x60",
    f'lodestar_rollbacks_total{{{WHO}, reason="errors"}}': "3x60",
    f'lodestar_swaps_total{{{WHO}, cause="swap", result="done"}}': "0+1x60",
    f"lodestar_prediction_log_dropped_total{{{WHO}}}": "7x60",
    f'lodestar_drifted_columns{{{WHO}, run_id="a"}}': "0x60",
    f'lodestar_model_info{{{WHO}, run_id="a", role="champion"}}': "1x60",
    f'lodestar_drifted_columns{{{WHO}, run_id="gone"}}': "3x60",
    f'lodestar_model_info{{{WHO}, run_id="gone", role="champion"}}': "0x60",
}


@pytest.fixture(scope="module")
def rules() -> dict[str, Any]:
    document = YAML(typ="safe").load((PLACE / "alerts.yaml").read_text(encoding="utf-8"))
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


def promtool(*words: str, cwd: Path) -> str:
    """Run Prometheus's own tool."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run(
        [program, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(lodestar: Lodestar, tmp_path: Path) -> Path:
    """As the command writes them."""
    done = lodestar("deploy", "monitoring", "--json", cwd=tmp_path).succeeded().json
    assert done["files"] == ["alerts.yaml", "dashboard.json", "prometheus.yaml"]
    return tmp_path / "deploy" / "monitoring"


def test_prometheus_takes_the_files(folder: Path) -> None:
    promtool("check", "config", "prometheus.yaml", cwd=folder)
    assert "13 rules found" in promtool("check", "rules", "alerts.yaml", cwd=folder)


def test_each_rule_fires_on_what_it_is_there_for_and_none_on_a_good_day(
    folder: Path, rules: dict[str, Any]
) -> None:
    assert set(FIRES) == set(rules)
    alerts = 'count by (alertname) (ALERTS{alertstate="firing"})'
    cases = [
        {
            "interval": "15s",
            "input_series": [{"series": name, "values": values} for name, values in given.items()],
            "promql_expr_test": [
                {
                    "expr": alerts,
                    "eval_time": "15m",
                    "exp_samples": [
                        {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in expected
                    ],
                }
            ],
        }
        for given, expected in (*((FIRES[name], [name]) for name in sorted(FIRES)), (QUIET, []))
    ]
    tests = {"rule_files": ["alerts.yaml"], "evaluation_interval": "15s", "tests": cases}
    (folder / "cases.yaml").write_text(json.dumps(tests), encoding="utf-8")
    promtool("test", "rules", "cases.yaml", cwd=folder)


def test_rules_and_dashboard_ask_for_nothing_that_is_not_counted(rules: dict[str, Any]) -> None:
    telemetry = Telemetry()
    counted = {family.name for family in telemetry._registry.collect()}
    asked = [rule["expr"] for rule in rules.values()] + expressions('job="lodestar"', "[5m]")
    names = {name for query in asked for name in re.findall(r"\blodestar_\w+", query)}
    base = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in names}
    assert base <= counted
    labels = {
        family.name: set(metric._labelnames)
        for metric in _metrics(telemetry)
        for family in metric.collect()
    }
    for query in asked:
        for by in re.findall(r"by \(([^)]*)\) \((?:rate|increase)\((lodestar_\w+)", query):
            wanted = {label.strip() for label in by[0].split(",")} - {"le", "job", "instance"}
            assert wanted <= labels[re.sub(r"_(total|bucket|sum|count)$", "", by[1])], query


def _metrics(telemetry: Telemetry) -> list[Any]:
    return [child._metric for child in vars(telemetry).values() if hasattr(child, "_metric")]


def test_the_dashboard_has_a_place_for_every_panel_and_none_twice() -> None:
    document = json.loads(dashboard())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in document["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in document["panels"]})
    assert {variable["name"] for variable in document["templating"]["list"]} == {
        "source",
        "job",
        "instance",
    }
    for panel in document["panels"]:
        for target in panel["targets"]:
            assert 'job=~"$job",instance=~"$instance"' in target["expr"]
