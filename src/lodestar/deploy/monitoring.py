"""What watches a served model: Prometheus's configuration and alert rules, Grafana's dashboard."""

from importlib.resources import files

from lodestar.deploy.dashboard import dashboard

__all__ = ["monitoring_files"]

PROMETHEUS = ("alerts.yaml", "prometheus.yaml")


def monitoring_files() -> dict[str, bytes]:
    """File name to content; the same for every run, as `serve-api` counts the same for all."""
    place = files("lodestar.deploy") / "prometheus"
    shipped = {name: (place / name).read_bytes() for name in PROMETHEUS}
    return {**shipped, "dashboard.json": dashboard().encode()}
