"""`lodestar features …`, `snapshot` and `parity`: the feature store's commands."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.edge import WORSE, guarded
from lodestar.cli.options import (
    Env,
    Json,
    Overrides,
    Params,
    RecipeFile,
    RunId,
    span_of,
    the_environment,
    the_settings,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lodestar.adapters.changes import Changes
    from lodestar.settings.selection import FeatureSelection

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
    """List namespaces, and until when the online store has them."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.feature_views import ListView
        from lodestar.pipelines.features import list_features

        out.show(ListView(list_features(environment)))


@features_app.command("status")
def features_status(
    namespaces: Annotated[
        list[str] | None, typer.Argument(help="Which namespaces (default: all).")
    ] = None,
    recipe_file: Annotated[
        str | None,
        typer.Option("--recipe-file", "-r", help="A recipe, for the max_age of what it takes."),
    ] = None,
    as_of: Annotated[
        datetime | None, typer.Option(help="The moment to look at, in UTC (default: now).")
    ] = None,
    max_lag: Annotated[
        str, typer.Option(help="How long versions may wait to be materialised: 6h, 1d.")
    ] = "1d",
    max_expired: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Share of entities that may be older than allowed, if not all."
        ),
    ] = 1.0,
    fail_on_stale: Annotated[
        bool, typer.Option("--fail-on-stale", help=f"Exit with {WORSE} where one is not fresh.")
    ] = False,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Tell how old features are, what waits, what has expired."""
    with guarded(as_json=as_json) as out:
        from lodestar.cli.alerting import show_with_alerts
        from lodestar.cli.staleness_views import StatusView
        from lodestar.core.staleness import StalenessLimits
        from lodestar.pipelines.staleness import feature_status

        limits = StalenessLimits(span_of("--max-lag", max_lag), max_expired)
        selection: Sequence[FeatureSelection] = ()
        if recipe_file is None:
            environment = the_environment(env)
        else:
            settings = the_settings(recipe_file, env, None)
            environment = settings.environment
            selection = settings.recipe.augmenter.features
        moment = datetime.now(UTC) if as_of is None else as_of.replace(tzinfo=UTC)
        with out.progress() as progress:
            status = feature_status(
                environment,
                namespaces or (),
                as_of=moment,
                limits=limits,
                selection=selection,
                tell=progress,
            )
        show_with_alerts(out, StatusView(status), environment, status)
        if fail_on_stale and status.stale:
            raise typer.Exit(WORSE)


@features_app.command("apply")
def features_apply(
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask, also where something is removed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change.")] = False,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Make Feast's registry or DynamoDB's tables as declared."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.feature_views import AppliedView, PlanView
        from lodestar.pipelines.features import apply_features, plan_features

        with out.progress() as progress:
            plan = plan_features(environment, tell=progress)
        if not as_json:
            out.show(PlanView(plan))
        due = bool(plan.changes.items) and not dry_run
        if due and not yes:
            _agree(plan.changes, asking=not as_json and sys.stdin.isatty() and sys.stderr.isatty())
        if due:
            with out.progress() as progress:
                apply_features(plan, tell=progress)
        out.show(AppliedView(plan, applied=due, dry_run=dry_run))


def _agree(changes: Changes, *, asking: bool) -> None:
    """Ask a person; where there is none, what removes nothing is agreed to.

    Raises:
        UsageError: it is not agreed to.
    """
    from lodestar.errors import UsageError

    if asking:
        if not typer.confirm("Apply these changes?", err=True):
            raise UsageError("not agreed to; nothing was changed")
    elif changes.breaking:
        lines = "".join(f"\n  {change}" for change in changes.breaking)
        raise UsageError(
            f"this removes what somebody may read:{lines}",
            hint="add --yes if that is meant; nothing was changed",
        )


@features_app.command("materialize")
def features_materialize(
    namespaces: Annotated[
        list[str] | None, typer.Argument(help="Which namespaces (default: all).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(help="Versions known by then, in UTC (default: now).")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(help="Only event times from then on, in UTC (default: all that hold)."),
    ] = None,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Bring the online store up to date."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.feature_views import MaterializedView
        from lodestar.pipelines.features import materialize

        end = datetime.now(UTC) if until is None else until.replace(tzinfo=UTC)
        begin = None if since is None else since.replace(tzinfo=UTC)
        with out.progress() as progress:
            done = materialize(environment, namespaces or (), until=end, since=begin, tell=progress)
        out.show(MaterializedView(done))


def snapshot(
    recipe_file: RecipeFile = None,
    context_params: Params = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="How many rows, drawn at random (default: all).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which rows are drawn.")] = 42,
    overrides: Overrides = None,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Write a recipe's rows and features to data/snapshots/."""
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
    url: Annotated[
        str | None,
        typer.Option(help="A server of this run to ask as well: http://127.0.0.1:8000"),
    ] = None,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Compare the batch with the online path, bit by bit."""
    with guarded(as_json=as_json) as out:
        from lodestar.settings.loading import parse_context_params

        environment, params = the_environment(env), parse_context_params(context_params)
        from lodestar.cli.feature_views import ParityView
        from lodestar.pipelines.parity import parity as run

        with out.progress() as progress:
            compared = run(environment, run_id, params, rows=rows, tell=progress, url=url)
        out.show(ParityView(compared))
        if compared.broken is not None:
            raise typer.Exit(DIFFERENT)
