"""`lodestar serve-api`: a run's artifact as a REST API."""

from __future__ import annotations

from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.edge import guarded
from lodestar.cli.options import Env, RunId, the_environment

if TYPE_CHECKING:
    from lodestar.artifact.register import OpenedRun
    from lodestar.artifact.wrapper import PyfuncWrapper
    from lodestar.interface.progress import Progress
    from lodestar.settings.loading import Environment

__all__ = ["add_serving_commands", "prove_ahead", "prove_loaded"]

SERVING_PACKAGE = "msgspec"  # nothing but lodestar-ml[serving] brings it


def add_serving_commands(app: typer.Typer) -> None:
    """Put it into the application."""
    app.command("serve-api")(serve_api)


def serve_api(
    run_id: RunId,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (default: the config's, 127.0.0.1).")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="0: any free one (default: 8000).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes that share the port (default: 1).")
    ] = None,
    challenger_run_id: Annotated[
        str | None, typer.Option(help="Another run, which answers --traffic percent of entities.")
    ] = None,
    traffic: Annotated[
        float | None, typer.Option(help="Percent of the entities that the challenger answers.")
    ] = None,
    shadow_run_id: Annotated[
        str | None, typer.Option(help="A run that is asked too; its answers are only compared.")
    ] = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(help="Judge the features' age as of this time, in UTC (default: now)."),
    ] = None,
    env: Env = None,
) -> None:
    """Serve a run's artifact as a REST API."""
    with guarded(as_json=False) as out:
        environment = the_environment(env)
        from lodestar.adapters.drivers import from_extra
        from lodestar.settings.permissions import check_serving_allowed

        check_serving_allowed(environment, run_id)
        with from_extra("serving", SERVING_PACKAGE):
            from lodestar.serving.launch import Asked, launch

        asked = Asked(
            run=run_id,
            challenger=challenger_run_id,
            shadow=shadow_run_id,
            traffic=traffic,
            host=host,
            port=port,
            workers=workers,
            as_of=as_of,
        )
        with out.progress() as progress:

            def started(address: str, run: OpenedRun) -> None:
                progress.done()
                console = out.console()
                console.print(f"✓ {run.run_name} answers on {address}", style="green")
                console.print(f"  try it   {address}/docs", highlight=False)
                console.print("  metrics  /metrics, health  /health/ready; end with Ctrl-C")

            code = launch(environment, asked, tell=progress, started=started)
        if code:
            raise typer.Exit(code)


def prove_ahead(environment: Environment, run_id: str, tell: Progress) -> None:
    """Prove now how a run is scored, where it may be served: its first start is then quick."""
    if _may_prove(environment):
        from lodestar.serving.proving import prove_ahead as prove

        prove(environment, run_id, tell)


def prove_loaded(
    environment: Environment, run: OpenedRun, wrapper: PyfuncWrapper, tell: Progress
) -> None:
    """Do so where the artifact is loaded already."""
    if _may_prove(environment):
        from lodestar.serving.proving import prove_loaded as prove

        prove(environment, run, wrapper, tell)


def _may_prove(environment: Environment) -> bool:
    config = environment.config
    extra = find_spec(SERVING_PACKAGE)
    return config.environment.serving == "allowed" and config.serving.native and extra is not None
