"""Options that several commands take, and where they run."""

import os
import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lodestar.settings.loading import Environment, Settings

__all__ = [
    "Env",
    "Json",
    "Overrides",
    "Params",
    "RecipeFile",
    "RunId",
    "span_of",
    "the_environment",
    "the_project",
    "the_settings",
    "the_variables",
]

RecipeFile = Annotated[
    str | None, typer.Option("--recipe-file", "-r", help="Recipe name, or a path; to be given.")
]
RunId = Annotated[
    str,
    typer.Option(
        "--run-id",
        help="Run id or digest, a unique prefix, or an alias: champion, recipe@champion.",
    ),
]
Params = Annotated[
    str | None, typer.Option("--context-params", help="Values of the SQL's parameters: k=v,k=v")
]
Env = Annotated[
    str | None,
    typer.Option("--env", help="Config to lay over base.yaml (default: APP_ENV, else LOCAL)."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one key: model.hyperparameters.max_depth=4, config.a.b=c"),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
SPANS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}


def span_of(option: str, text: str) -> timedelta:
    """A span of time: `7d`, `36h`, `90m`.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"([0-9]{1,6})([dhm])", text)
    if found is None or not int(found[1]):
        raise UsageError(
            f"{option} {text!r} is no time span",
            hint="such as 7d, 36h or 90m: days, hours, minutes",
        )
    return int(found[1]) * SPANS[found[2]]


def the_project() -> Path:
    """The project around the working directory; its own modules can be imported by class path."""
    from lodestar.settings.loading import find_project

    project = find_project(Path.cwd())
    if str(project) not in sys.path:
        sys.path.append(str(project))
    return project


def the_environment(name: str | None) -> "Environment":
    """The named environment of the project here."""
    from lodestar.settings.loading import load_config

    return load_config(the_project(), name, variables=the_variables())


def the_settings(
    recipe: str | None, environment: str | None, overrides: "Sequence[str] | None"
) -> "Settings":
    """One recipe of the project here, in one environment.

    Raises:
        UsageError: none is named; the error says which there are.
    """
    from lodestar.settings.loading import load_settings, recipe_names

    project = the_project()
    if recipe is None:
        raise UsageError("no recipe is named", hint=_which(recipe_names(project)))
    return load_settings(
        project,
        recipe,
        environment=environment,
        overrides=overrides or (),
        variables=the_variables(),
    )


def the_variables() -> dict[str, str]:
    """What `${VARIABLE}` in a config is filled in from."""
    return dict(os.environ)


def _which(recipes: "Sequence[str]") -> str:
    """What to type."""
    match recipes:
        case []:
            return "there is none in recipes/"
        case [only]:
            return f"there is one: -r {only}"
        case _:
            return f"-r with one of {', '.join(recipes)}"
