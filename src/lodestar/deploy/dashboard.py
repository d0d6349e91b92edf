"""A Grafana dashboard of what `serve-api` counts: traffic, latency, predictions, features, versions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lodestar.deploy.documents import json_text

__all__ = ["dashboard", "expressions"]

SCHEMA_VERSION = 39  # Grafana 11's; later ones take it
SOURCE = {"type": "prometheus", "uid": "${source}"}
WIDTH, HEIGHT, COLUMNS = 8, 8, 24


@dataclass(frozen=True)
class _Queries:
    """PromQL over the chosen servers: `selector` is inside the braces, `window` with its brackets."""

    selector: str
    window: str

    def now(self, metric: str) -> str:
        return f"lodestar_{metric}{{{self.selector}}}"

    def rate(self, metric: str, *by: str, where: str = "", over: str = "rate") -> str:
        chosen = f"{self.selector},{where}" if where else self.selector
        kept = f" by ({', '.join(by)}) " if by else ""
        return f"sum{kept}({over}(lodestar_{metric}{{{chosen}}}{self.window}))"

    def share(self, metric: str, where: str) -> str:
        return f"{self.rate(metric, where=where)} / {self.rate(metric)}"

    def quantile(self, share: float, metric: str, *by: str) -> str:
        return f"histogram_quantile({share:g}, {self.rate(f'{metric}_bucket', 'le', *by)})"

    def quantiles(self, metric: str, *shares: float) -> dict[str, str]:
        return {f"p{share * 100:g}": self.quantile(share, metric) for share in shares}


@dataclass(frozen=True)
class _Panel:
    """A drawing: what it shows, in which of Grafana's units, and the queries by their legend."""

    title: str
    unit: str
    queries: Mapping[str, str]


def dashboard() -> str:
    """The JSON that Grafana imports; it asks which Prometheus, job and instance."""
    queries = _Queries('job=~"$job",instance=~"$instance"', "[$__rate_interval]")
    document = {
        "title": "Lodestar serve-api",
        "uid": "lodestar-serve-api",
        "tags": ["lodestar"],
        "schemaVersion": SCHEMA_VERSION,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source(), _label("job"), _label("instance")]},
        "panels": [_drawn(at, panel) for at, panel in enumerate(_panels(queries))],
    }
    return json_text(document)


def expressions(selector: str, window: str) -> list[str]:
    """Every query of the dashboard, f.e. for `selector` job="lodestar" and `window` [5m]."""
    panels = _panels(_Queries(selector, window))
    return [query for panel in panels for query in panel.queries.values()]


def _panels(ask: _Queries) -> Sequence[_Panel]:
    rows = f"{ask.rate('batch_rows_sum')} / {ask.rate('batch_rows_count')}"
    versions = f"max by (role, run_id) ({ask.now('model_info')}) > 0"
    changes = ask.rate("swaps_total", "cause", "result", over="increase")
    taken_back = ask.rate("rollbacks_total", "reason", over="increase")
    failed = {
        "failed": ask.share("requests_total", 'status=~"5.."'),
        "refused": ask.share("requests_total", 'status=~"4.."'),
    }
    online = {
        "failures a second": ask.rate("online_failures_total"),
        "left alone": f"max({ask.now('breaker_open')})",
    }
    waiting = f"sum({ask.now('queue')})"
    missing = ask.rate("features_missing_total", "feature")
    stale = ask.rate("features_stale_total", "feature")
    unknown = ask.rate("unknown_categories_total", "column")
    drifted = f"max by (run_id) ({ask.now('drifted_columns')})"
    psi = f"topk(10, max by (column) ({ask.now('drift_psi')}))"
    otherwise = ask.share("shadow_rows_total", 'result="different"')
    return (
        _Panel("Requests", "reqps", {"{{status}}": ask.rate("requests_total", "status")}),
        _Panel("Share of requests", "percentunit", failed),
        _Panel("Turned away", "reqps", {"{{reason}}": ask.rate("shed_total", "reason")}),
        _Panel("Time to answer", "s", ask.quantiles("request_seconds", 0.5, 0.95, 0.99)),
        _Panel("p99 by stage", "s", {"{{stage}}": ask.quantile(0.99, "stage_seconds", "stage")}),
        _Panel("Micro-batches", "short", {"rows together": rows, "waiting": waiting}),
        _Panel("Predictions", "short", ask.quantiles("prediction", 0.25, 0.5, 0.75)),
        _Panel("By label", "short", {"{{label}}": ask.rate("predictions_total", "label")}),
        _Panel("Shadow: rows answered otherwise", "percentunit", {"share": otherwise}),
        _Panel("Drifted columns", "short", {"{{run_id}}": drifted}),
        _Panel("Stability index, the ten largest", "short", {"{{column}}": psi}),
        _Panel("Features missing, a second", "short", {"{{feature}}": missing}),
        _Panel("Features older than max_age, a second", "short", {"{{feature}}": stale}),
        _Panel("Categories new to the model, a second", "short", {"{{column}}": unknown}),
        _Panel("Online store", "short", online),
        _Panel("Served versions", "short", {"{{role}} {{run_id}}": versions}),
        _Panel(
            "Champions brought in, and taken back",
            "short",
            {"{{cause}} {{result}}": changes, "back: {{reason}}": taken_back},
        ),
    )


def _drawn(at: int, panel: _Panel) -> dict[str, Any]:
    row, column = divmod(at * WIDTH, COLUMNS)
    return {
        "id": at + 1,
        "type": "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "gridPos": {"x": column, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
            }
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _label(name: str) -> dict[str, Any]:
    others = "" if name == "job" else '{job=~"$job"}'
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": f"label_values(lodestar_model_info{others}, {name})",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
