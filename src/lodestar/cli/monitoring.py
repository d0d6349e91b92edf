"""`lodestar monitor`: later rows against what a run was trained on, and labels against predictions."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.edge import WORSE, guarded
from lodestar.cli.options import Env, Json, Params, RunId, span_of, the_environment
from lodestar.cli.tracing import traced
from lodestar.errors import UsageError

__all__ = ["FailOnDrift", "add_monitoring_commands"]

FailOnDrift = Annotated[
    bool, typer.Option("--fail-on-drift", help=f"Exit with {WORSE} where a column has drifted.")
]


class Unit(StrEnum):
    """The parts of the time that labels are judged by."""

    DAY = "day"
    HOUR = "hour"


def add_monitoring_commands(app: typer.Typer) -> None:
    """Put it into the application."""
    app.command("monitor")(monitor)


def monitor(
    run_id: RunId,
    data: Annotated[
        str | None, typer.Option(help="Rows to compare, or a batch's predictions: a file or URI.")
    ] = None,
    log: Annotated[str | None, typer.Option(help="Folder of serve-api's prediction log.")] = None,
    since: Annotated[str | None, typer.Option(help="First moment of the log, UTC.")] = None,
    until: Annotated[
        str | None, typer.Option(help="End of the log's time, not included, UTC.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="What has happened since: a file, a URI, or a file with SQL."),
    ] = None,
    label_time: Annotated[
        str | None,
        typer.Option(help="Column that says when a label was known (default: labelled_at)."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="Column that joins labels with predictions; may be repeated."),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option(help="A label comes at most so long after its prediction: 7d, 36h."),
    ] = None,
    segment: Annotated[
        list[str] | None, typer.Option(help="Judge by this column too; may be repeated.")
    ] = None,
    by: Annotated[Unit | None, typer.Option(help="Judge labels by day (default) or hour.")] = None,
    context_params: Params = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page to this file.")] = None,
    fail_on_drift: FailOnDrift = False,
    fail_on_degradation: Annotated[
        bool,
        typer.Option(
            "--fail-on-degradation", help=f"Exit with {WORSE} where labels say it became worse."
        ),
    ] = False,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Compare later rows with training; judge by later labels."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.alerting import show_with_alerts
        from lodestar.cli.monitoring_views import MonitorView
        from lodestar.pipelines.labels import LabelQuestion
        from lodestar.pipelines.monitor import Asked
        from lodestar.pipelines.monitor import monitor as run
        from lodestar.settings.loading import parse_context_params

        options = (label_time, within, by, context_params, fail_on_degradation or None)
        question = None
        if labels is not None:
            question = LabelQuestion(
                labels,
                time=label_time,
                keys=tuple(key or ()),
                segments=tuple(segment or ()),
                unit="hour" if by is Unit.HOUR else "day",
                within=None if within is None else span_of("--within", within),
                params=parse_context_params(context_params),
            )
        elif key or segment or any(option is not None for option in options):
            raise UsageError(
                "--label-time, --key, --within, --segment, --by, --context-params and "
                "--fail-on-degradation say how labels are judged, and there are none",
                hint="give --labels",
            )
        asked = Asked(data, log, _moment("--since", since), _moment("--until", until), question)
        with out.progress() as progress, traced(environment, "monitor", progress) as steps:
            monitored = run(environment, run_id, asked, progress=steps)
            steps.about(
                recipe=monitored.recipe, run_id=monitored.run_id, rows=monitored.report.rows
            )
        if html is not None:
            from lodestar.pipelines.monitoring_page import write_page

            write_page(monitored, html)
        show_with_alerts(out, MonitorView(monitored, html), environment, monitored)
        drifted = fail_on_drift and monitored.verdict == "drift"
        told = monitored.labels
        if drifted or (fail_on_degradation and told is not None and told.verdict == "degraded"):
            raise typer.Exit(WORSE)


def _moment(option: str, text: str | None) -> datetime | None:
    """A date or a time as ISO writes it; without an offset it is UTC, as the log's folders are."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{option} {text!r} is neither a date nor a time",
            hint="such as 2026-03-01 or 2026-03-01T12:00 (UTC), or 2026-03-01T21:00+09:00",
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
