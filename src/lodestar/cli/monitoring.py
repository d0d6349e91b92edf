"""`lodestar monitor`: later rows against what a run was trained on."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.edge import WORSE, guarded
from lodestar.cli.options import Env, Json, RunId, the_environment
from lodestar.errors import UsageError

__all__ = ["FailOnDrift", "add_monitoring_commands"]

FailOnDrift = Annotated[
    bool, typer.Option("--fail-on-drift", help=f"Exit with {WORSE} where a column has drifted.")
]


def add_monitoring_commands(app: typer.Typer) -> None:
    """Put it into the application."""
    app.command("monitor")(monitor)


def monitor(
    run_id: RunId,
    data: Annotated[str | None, typer.Option(help="Rows to compare: a file or URI.")] = None,
    log: Annotated[str | None, typer.Option(help="Folder of serve-api's prediction log.")] = None,
    since: Annotated[str | None, typer.Option(help="First moment of the log, UTC.")] = None,
    until: Annotated[
        str | None, typer.Option(help="End of the log's time, not included, UTC.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page to this file.")] = None,
    fail_on_drift: FailOnDrift = False,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Compare later rows with what a run was trained on."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.alerting import show_with_alerts
        from lodestar.cli.monitoring_views import MonitorView
        from lodestar.pipelines.monitor import Asked
        from lodestar.pipelines.monitor import monitor as run

        asked = Asked(data, log, _moment("--since", since), _moment("--until", until))
        with out.progress() as progress:
            monitored = run(environment, run_id, asked, progress=progress)
        if html is not None:
            from lodestar.pipelines.monitoring_page import write_page

            write_page(monitored, html)
        show_with_alerts(out, MonitorView(monitored, html), environment, monitored)
        if fail_on_drift and monitored.verdict == "drift":
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
