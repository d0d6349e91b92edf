"""`lodestar features …`, `snapshot` and `parity`: the feature store's commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lodestar.cli.drawing import add_row, print_facts, print_next, table_of
from lodestar.cli.edge import guarded
from lodestar.cli.options import (
    Env,
    Json,
    Overrides,
    Params,
    RecipeFile,
    RunId,
    the_environment,
    the_project,
    the_variables,
)

if TYPE_CHECKING:
    from rich.console import Console

    from lodestar.pipelines.features import ListedView, MaterializedView
    from lodestar.pipelines.parity import Parity
    from lodestar.pipelines.snapshot import TakenSnapshot

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
        from lodestar.pipelines.features import list_features

        out.show(_ListView(list_features(environment)))


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
        from lodestar.pipelines.features import materialize

        moment = datetime.now(UTC) if until is None else until.replace(tzinfo=UTC)
        with out.progress() as progress:
            done = materialize(environment, namespaces or (), until=moment, tell=progress)
        out.show(_MaterializedView(done))


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
        from lodestar.settings.loading import load_settings, parse_context_params

        settings = load_settings(
            the_project(),
            recipe_file,
            environment=env,
            overrides=overrides or (),
            variables=the_variables(),
        )
        params = parse_context_params(context_params)
        from lodestar.pipelines.snapshot import snapshot as run

        with out.progress() as progress:
            taken = run(settings, params, rows=rows, seed=seed, tell=progress)
        out.show(_SnapshotView(taken))


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
        from lodestar.pipelines.parity import parity as run

        with out.progress() as progress:
            compared = run(environment, run_id, params, rows=rows, tell=progress)
        out.show(_ParityView(compared))
        if compared.broken is not None:
            raise typer.Exit(DIFFERENT)


class _ListView:
    def __init__(self, listed: Sequence[ListedView]) -> None:
        self._listed = listed

    def json(self) -> dict[str, Any]:
        return {
            "namespaces": [
                {
                    "namespace": item.view.namespace,
                    "entity_keys": list(item.view.keys),
                    "features": {name: one.type for name, one in item.view.features.items()},
                    "owner": item.view.owner,
                    "materialized_until": item.watermark and item.watermark.isoformat(),
                    "unknown": item.unknown,
                }
                for item in self._listed
            ]
        }

    def print(self, console: Console) -> None:
        table = table_of("namespace", "keys", "features", "owner", "online until")
        for item in self._listed:
            until = f"{item.watermark:%Y-%m-%d %H:%M:%S}" if item.watermark else "never"
            add_row(
                table,
                item.view.namespace,
                ", ".join(item.view.keys),
                ", ".join(item.view.features),
                item.view.owner,
                item.unknown or until,
            )
        console.print(table)


class _MaterializedView:
    def __init__(self, done: Sequence[MaterializedView]) -> None:
        self._done = done

    def json(self) -> dict[str, Any]:
        return {
            "namespaces": [{**asdict(item), "until": item.until.isoformat()} for item in self._done]
        }

    def print(self, console: Console) -> None:
        table = table_of("namespace", "entities", "until")
        for item in self._done:
            add_row(
                table, item.namespace, f"{item.entities:,}", f"{item.until:%Y-%m-%d %H:%M:%S} UTC"
            )
        console.print(table)


class _SnapshotView:
    def __init__(self, taken: TakenSnapshot) -> None:
        self._taken = taken

    def json(self) -> dict[str, Any]:
        return asdict(self._taken)

    def print(self, console: Console) -> None:
        taken = self._taken
        console.print(f"[green]✓[/] {taken.rows:,} of {taken.of:,} rows in {taken.path}")
        if taken.hashed:
            print_facts(console, ("hashed", ", ".join(taken.hashed)))
        name = taken.path.rpartition("/")[2].removesuffix(".parquet")
        print_next(console, (f"lodestar train --recipe-file {name} --env local", "train on it"))


class _ParityView:
    def __init__(self, compared: Parity) -> None:
        self._compared = compared

    def json(self) -> dict[str, Any]:
        compared, broken = self._compared, self._compared.broken
        return {
            "run_id": compared.run_id,
            "rows": compared.rows,
            "as_of": compared.as_of.isoformat(),
            "equal": broken is None,
            "first_difference": None if broken is None else asdict(broken),
            "columns": [asdict(column) for column in compared.columns],
        }

    def print(self, console: Console) -> None:
        compared, broken = self._compared, self._compared.broken
        table = table_of("stage", "columns", "rows that differ", "first difference")
        for stage in ("features", "preprocessed", "predictions"):
            columns = [column for column in compared.columns if column.stage == stage]
            wrong = next((column for column in columns if column.differing), None)
            add_row(
                table,
                stage,
                str(len(columns)),
                f"{max((column.differing for column in columns), default=0):,}",
                ""
                if wrong is None
                else f"{wrong.name}, row {wrong.first_row}: batch {wrong.batch}, online {wrong.online}",
            )
        console.print(table)
        said = f"{compared.rows:,} entities as of {compared.as_of:%Y-%m-%d %H:%M:%S} UTC"
        if broken is None:
            console.print(f"[green]✓[/] bit by bit the same: {said}")
        else:
            console.print(f"[red]✗[/] the paths part at {broken.stage}, {broken.name}: {said}")
