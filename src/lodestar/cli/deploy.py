"""`lodestar deploy`: the files that put a run's API into production, and those that watch it there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.edge import guarded
from lodestar.cli.options import Env, Json, RunId, the_project, the_variables

if TYPE_CHECKING:
    from lodestar.settings.loading import Environment

__all__ = ["deploy_app"]

deploy_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Put a run's API into production."
)


@deploy_app.command()
def render(
    target: Annotated[
        str,
        typer.Argument(
            help="kubernetes, cloud-run, ecs, lambda, container-instances or compose.",
        ),
    ],
    run_id: RunId,
    image: Annotated[
        str | None, typer.Option(help="The name that the image is pushed under, with its tag.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where the files go (default: deploy/TARGET).")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The service's name (default: the recipe's).")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(min=0, max=1000, help="A fixed number of instances.")
    ] = None,
    least: Annotated[
        int | None, typer.Option("--min", min=0, max=1000, help="At least so many instances.")
    ] = None,
    most: Annotated[
        int | None, typer.Option("--max", min=1, max=1000, help="At most so many instances.")
    ] = None,
    cpu: Annotated[
        str | None, typer.Option(help="Processors of an instance: 0.5, 500m, 2 (default: 1).")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Memory of an instance: 512Mi, 2Gi (default: 1Gi; on AWS about 2Gi)."),
    ] = None,
    variable: Annotated[
        list[str] | None,
        typer.Option(
            "--variable",
            help="NAME=value is written as it is; NAME refers to the target's secret store, as "
            "all ${NAME} of the config do anyway.",
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="What only this target has: key=value; a missing one is named."),
    ] = None,
    base_image: Annotated[
        str | None,
        typer.Option(
            help="What the image is built on (default: python:3.x-slim of the run); pin it with "
            "@sha256:…"
        ),
    ] = None,
    requirements: Annotated[
        Path | None,
        typer.Option(help="A lock with hashes of your own (default: made with uv from the run's)."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also write over files that were changed.")
    ] = False,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Write a Dockerfile and its files, and what the target takes.

    The run's artifact goes into the image, so that it starts without a tracking server. An alias is
    looked up now: the files name the run that it means. Nothing is built and no cloud is called; the
    commands to do so are printed at the end.
    """
    with guarded(as_json=as_json) as out:
        environment = _environment(env)
        from lodestar.cli.deploy_views import RenderedView
        from lodestar.pipelines.deploy import Asked
        from lodestar.pipelines.deploy import render as run

        asked = Asked(
            target=target,
            image=image,
            output=None if output is None else output.absolute(),
            name=name,
            replicas=replicas,
            least=least,
            most=most,
            cpu=cpu,
            memory=memory,
            variables=tuple(variable or ()),
            settings=tuple(setting or ()),
            base=base_image,
            requirements=requirements,
            force=force,
        )
        with out.progress() as progress:
            rendered = run(environment, run_id, asked, tell=progress)
        out.show(RenderedView(rendered))


@deploy_app.command()
def monitoring(
    output: Annotated[Path, typer.Option(help="Where the files go.")] = Path("deploy/monitoring"),
    force: Annotated[
        bool, typer.Option("--force", help="Also write over files that were changed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write rules for Prometheus and a dashboard for Grafana."""
    with guarded(as_json=as_json) as out:
        from lodestar.cli.deploy_views import MonitoringView
        from lodestar.deploy.folder import write_files
        from lodestar.deploy.monitoring import monitoring_files

        out.show(MonitoringView(write_files(output.absolute(), monitoring_files(), force=force)))


def _environment(name: str | None) -> Environment:
    """The environment of the project here, whether its secrets are set or not."""
    from lodestar.deploy.variables import with_stand_ins
    from lodestar.settings.loading import environment_name, load_config

    project, variables = the_project(), the_variables()
    chosen = environment_name(name, variables)
    return load_config(project, chosen, variables=with_stand_ins(project, chosen, variables))
