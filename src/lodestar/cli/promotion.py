"""`lodestar promote`, `rollback` and `runs upload`."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from lodestar.cli.edge import guarded
from lodestar.cli.options import Env, Json, RunId, the_environment
from lodestar.cli.serving import prove_loaded

__all__ = ["add_promotion_commands"]

Alias = Annotated[str, typer.Option("--alias", help="Letters, digits, _ and -.")]
Recipe = Annotated[
    str | None,
    typer.Option("--recipe", help="Whose alias, where several recipes have one so named."),
]


def add_promotion_commands(app: typer.Typer, runs_app: typer.Typer) -> None:
    """Put them into the application."""
    app.command()(promote)
    app.command()(rollback)
    runs_app.command("upload")(runs_upload)


def promote(
    run_id: RunId,
    alias: Alias = "champion",
    force: Annotated[
        bool, typer.Option("--force", help="Even if callers would notice the exchange.")
    ] = False,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Give a run an alias, which --run-id takes everywhere."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.promotion_views import PromotionView
        from lodestar.pipelines.promotion import promote as run

        with out.progress() as progress:
            promoted = run(
                environment,
                run_id,
                alias,
                force=force,
                tell=progress,
                then=partial(prove_loaded, environment, tell=progress),
            )
        out.show(PromotionView(promoted))


def rollback(
    alias: Alias = "champion",
    recipe: Recipe = None,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Give an alias back to the run that had it before."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.promotion_views import PromotionView
        from lodestar.pipelines.promotion import rollback as run

        out.show(PromotionView(run(environment, alias, recipe)))


def runs_upload(env: Env = None, as_json: Json = False) -> None:
    """Upload trainings that were kept while MLflow was down."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.promotion_views import UploadView
        from lodestar.pipelines.uploading import upload

        with out.progress() as progress:
            uploaded = upload(environment, tell=progress)
        out.show(UploadView(uploaded))
        if uploaded.damaged:
            raise typer.Exit(uploaded.damaged[0].exit_code)
