"""`lodestar features …`, `snapshot` and `parity`: the feature store's commands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from lodestar.cli.edge import guarded
from lodestar.cli.options import (
    Env,
    Json,
    Overrides,
    Params,
    RecipeFile,
    RunId,
    the_environment,
    the_settings,
)

__all__ = ["add_feature_commands"]

features_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at features and serve the newest."
)
DIFFERENT = 3


def add_feature_commands(app: typer.Typer) -> None:
    """Put them into the application."""
    app.add_typer(features_app, name="features")
    app.command()(snapshot)
    app.command()(parity)


@features_app.command("list")
def features_list(env: Env = None, as_json: Json = False) -> None:
    """List the declared namespaces, and until when the online store has them."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.feature_views import ListView
        from lodestar.pipelines.features import list_features

        out.show(ListView(list_features(environment)))


@features_app.command("materialize")
def features_materialize(
    namespaces: Annotated[
        list[str] | None, typer.Argument(help="Which namespaces (default: all).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(help="Versions known by then, in UTC (default: now).")
    ] = None,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Bring the online store up to date."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.feature_views import MaterializedView
        from lodestar.pipelines.features import materialize

        moment = datetime.now(UTC) if until is None else until.replace(tzinfo=UTC)
        with out.progress() as progress:
            done = materialize(environment, namespaces or (), until=moment, tell=progress)
        out.show(MaterializedView(done))


def snapshot(
    recipe_file: RecipeFile,
    context_params: Params = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="How many rows, drawn at random (default: all).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which rows are drawn.")] = 42,
    overrides: Overrides = None,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Write a recipe's spine and features to data/snapshots/, for LOCAL."""
    with guarded(as_json=as_json) as out:
        from lodestar.settings.loading import parse_context_params

        settings = the_settings(recipe_file, env, overrides)
        params = parse_context_params(context_params)
        from lodestar.cli.feature_views import SnapshotView
        from lodestar.pipelines.snapshot import snapshot as run

        with out.progress() as progress:
            taken = run(settings, params, rows=rows, seed=seed, tell=progress)
        out.show(SnapshotView(taken))


def parity(
    run_id: RunId,
    context_params: Params = None,
    rows: Annotated[int, typer.Option(min=1, help="How many entities to compare.")] = 1000,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Compare the batch path with the online path, every feature and prediction bit by bit."""
    with guarded(as_json=as_json) as out:
        from lodestar.settings.loading import parse_context_params

        environment, params = the_environment(env), parse_context_params(context_params)
        from lodestar.cli.feature_views import ParityView
        from lodestar.pipelines.parity import parity as run

        with out.progress() as progress:
            compared = run(environment, run_id, params, rows=rows, tell=progress)
        out.show(ParityView(compared))
        if compared.broken is not None:
            raise typer.Exit(DIFFERENT)
