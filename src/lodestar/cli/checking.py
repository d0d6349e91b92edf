"""`lodestar check`: recipes before any training, and what an environment takes from outside."""

from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.edge import guarded
from lodestar.cli.options import (
    Env,
    Json,
    Overrides,
    the_environment,
    the_project,
    the_settings,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lodestar.cli.edge import Out
    from lodestar.errors import LodestarError, SettingsError
    from lodestar.settings.loading import Settings

__all__ = ["add_check_command"]


def add_check_command(app: typer.Typer) -> None:
    """Add it to the command line."""
    app.command()(check)


def check(
    recipe_file: Annotated[
        str | None,
        typer.Option("--recipe-file", "-r", help="One recipe (default: all; with --online: none)."),
    ] = None,
    online: Annotated[
        bool,
        typer.Option(
            "--online", help="Try out stores and servers, piece by piece; nothing is left behind."
        ),
    ] = False,
    within: Annotated[
        float, typer.Option(min=0.1, help="Seconds for each piece of --online.")
    ] = 30.0,
    overrides: Overrides = None,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Check recipes, or with --online the stores and servers."""
    with guarded(as_json=as_json) as out:
        if online:
            _check_online(out, recipe_file, overrides, env, within)
        else:
            _check_recipes(out, recipe_file, overrides, env)


def _check_recipes(
    out: "Out", recipe_file: str | None, overrides: "Sequence[str] | None", env: str | None
) -> None:
    from lodestar.errors import LodestarError
    from lodestar.settings.loading import recipe_names

    names = [recipe_file] if recipe_file else recipe_names(the_project())
    found: dict[str, Settings] = {}
    failed: dict[str, LodestarError] = {}
    for name in names:
        try:
            found[name] = the_settings(name, env, overrides)
        except LodestarError as error:
            failed[name] = error
    checked = []
    if found:
        from lodestar.pipelines.check import check as run

        for name, settings in found.items():
            try:
                checked.append(run(settings))
            except LodestarError as error:
                failed[name] = error
    if len(names) == 1 and failed:
        raise failed[names[0]]
    from lodestar.cli.present import CheckView

    lacking = _lacking(failed) if checked else {}
    wrong = {name: error for name, error in failed.items() if name not in lacking}
    out.show(CheckView(checked, wrong, lacking))
    if wrong:
        raise typer.Exit(next(iter(wrong.values())).exit_code)


def _lacking(failed: "Mapping[str, LodestarError]") -> "dict[str, SettingsError]":
    """The recipes with nothing wrong but extras that are not installed, as samples may have."""
    from lodestar.errors import SettingsError

    return {
        name: error
        for name, error in failed.items()
        if isinstance(error, SettingsError) and error.missing_extras
    }


def _check_online(
    out: "Out",
    recipe_file: str | None,
    overrides: "Sequence[str] | None",
    env: str | None,
    within: float,
) -> None:
    from lodestar.errors import UsageError

    if overrides and recipe_file is None:
        raise UsageError("--set changes what a recipe is checked with", hint="name one: -r RECIPE")
    settings = None if recipe_file is None else the_settings(recipe_file, env, overrides)
    environment = the_environment(env) if settings is None else settings.environment
    from lodestar.cli.checking_views import OnlineView
    from lodestar.pipelines.check_online import check_online

    with out.progress() as progress:
        checked = check_online(environment, settings, within=within, tell=progress)
    out.show(OnlineView(checked))
    if checked.bug is not None:
        raise checked.bug
    if checked.exit_code:
        raise typer.Exit(checked.exit_code)
