"""From a project directory to `Settings`: base.yaml, the environment's file, the recipe, overrides."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from lodestar.errors import Problem, SettingsError, UsageError, choices
from lodestar.settings.config import Config
from lodestar.settings.env_file import with_env_file
from lodestar.settings.recipe import Recipe
from lodestar.settings.validation import problems_of
from lodestar.settings.yaml_source import KeyPath, Source, parse_value, read_yaml

__all__ = [
    "LOCAL",
    "ConfigPlace",
    "Environment",
    "LoadedRecipe",
    "Settings",
    "environment_name",
    "find_project",
    "load_config",
    "load_settings",
    "parse_context_params",
    "recipe_names",
]

LOCAL = "local"
S = TypeVar("S", Config, Recipe)
_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe with the text it was read from, and where each of its keys stands."""

    name: str
    recipe: Recipe
    text: str
    overrides: tuple[str, ...]
    source: Source

    def where(self, *path: str | int) -> str:
        """`file:line:key` of one of its keys."""
        return self.source.where(path)

    def problem(self, what: str, *path: str | int, hint: str | None = None) -> Problem:
        """Word a problem at one of its keys."""
        return Problem(what, self.where(*path), hint)


@dataclass(frozen=True)
class Environment:
    """One environment of one project."""

    project: Path
    name: str
    config: Config


@dataclass(frozen=True)
class ConfigPlace:
    """Where an environment's config lies, for whoever reads it again elsewhere."""

    project: Path
    name: str

    def read(self, variables: Mapping[str, str]) -> Environment:
        """Read it with the variables of whoever reads.

        Raises:
            UsageError: it is not there.
            SettingsError: all problems of its files at once.
        """
        if not (self.project / "config" / "base.yaml").is_file():
            raise UsageError(
                f"there is no {self.project}/config/base.yaml where a part is to be read",
                hint="all nodes must see the project under the same path (shared storage), and have "
                "the variables that its config names",
            )
        return load_config(self.project, self.name, variables=variables)


@dataclass(frozen=True)
class Settings:
    """One recipe in one environment of one project."""

    environment: Environment
    loaded: LoadedRecipe

    @property
    def recipe(self) -> Recipe:
        """The recipe's values."""
        return self.loaded.recipe


def find_project(start: Path) -> Path:
    """The nearest directory at or above `start` that holds config/base.yaml.

    Raises:
        UsageError: there is none.
    """
    for directory in (start.resolve(), *start.resolve().parents):
        if (directory / "config" / "base.yaml").is_file():
            return directory
    raise UsageError(
        "no Lodestar project here: config/base.yaml is neither in this directory nor above it",
        hint="make one with: lodestar init my-project",
    )


def load_config(
    project: Path, environment: str | None, *, variables: Mapping[str, str]
) -> Environment:
    """Read one environment's config.

    Raises:
        SettingsError: all problems of its files at once.
        UsageError: the environment has no file.
    """
    problems: list[Problem] = []
    name = environment_name(environment, variables)
    config = _config(project, name, (), variables, problems)
    if config is None or problems:
        raise SettingsError(problems)
    return Environment(project, name, config)


def load_settings(
    project: Path,
    recipe_file: str,
    *,
    environment: str | None = None,
    overrides: Sequence[str] = (),
    variables: Mapping[str, str],
) -> Settings:
    """Read config and recipe. `overrides` are `a.b=value`, for the config `config.a.b=value`.

    Raises:
        SettingsError: all problems of all files at once.
        UsageError: no such recipe or environment, or an override that cannot be read.
    """
    name = environment_name(environment, variables)
    path = _recipe_path(project, recipe_file)
    for_config = [item for item in overrides if item.startswith("config.")]
    for_recipe = [item for item in overrides if not item.startswith("config.")]
    problems: list[Problem] = []
    config = _config(
        project, name, [item.removeprefix("config.") for item in for_config], variables, problems
    )
    source = read_yaml(path, path.relative_to(project).as_posix())
    _apply(for_recipe, source)
    recipe = _validated(Recipe, source, problems)
    if config is None or recipe is None or problems:
        raise SettingsError(problems)
    loaded = LoadedRecipe(
        name=path.stem,
        recipe=recipe,
        text=path.read_text(encoding="utf-8"),
        overrides=tuple(for_recipe),
        source=source,
    )
    return Settings(Environment(project, name, config), loaded)


def parse_context_params(text: str | None) -> dict[str, str]:
    """Read `start_date=2025-01-01,end_date=2025-01-31`; values stay text.

    Raises:
        UsageError: a part is no `name=value`, or a name stands twice.
    """
    params: dict[str, str] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, sign, value = part.partition("=")
        if not sign or not re.fullmatch(r"[A-Za-z_]\w*", name.strip()):
            raise UsageError(
                f"--context-params: {part!r} is not name=value",
                hint='for example --context-params "start_date=2025-01-01,end_date=2025-01-31"',
            )
        if name.strip() in params:
            raise UsageError(f"--context-params: {name.strip()} is given twice")
        params[name.strip()] = value.strip()
    return params


def recipe_names(project: Path) -> list[str]:
    """The recipes of a project, by name."""
    return sorted(path.stem for path in (project / "recipes").glob("*.yaml"))


def environment_name(environment: str | None, variables: Mapping[str, str]) -> str:
    """`--env`, else APP_ENV, else LOCAL."""
    return (environment or variables.get("APP_ENV") or LOCAL).lower()


def _recipe_path(project: Path, recipe_file: str) -> Path:
    if _NAME.match(recipe_file) and not recipe_file.endswith((".yaml", ".yml")):
        path = project / "recipes" / f"{recipe_file}.yaml"
    else:
        given = Path(recipe_file)
        path = given if given.is_absolute() else Path.cwd() / given
        if not given.is_absolute() and not path.is_file():
            path = project / given
    resolved = path.resolve()
    if not resolved.is_relative_to(project):
        raise UsageError(
            f"the recipe {recipe_file!r} lies outside the project",
            hint="recipes live below the project, in recipes/",
        )
    if not resolved.is_file():
        raise UsageError(
            f"there is no recipe {recipe_file!r}", hint=choices(path.stem, recipe_names(project))
        )
    return resolved


def _config(
    project: Path,
    name: str,
    overrides: Sequence[str],
    variables: Mapping[str, str],
    problems: list[Problem],
) -> Config | None:
    variables = with_env_file(variables, project)
    source = read_yaml(project / "config" / "base.yaml", "config/base.yaml", variables=variables)
    if name != LOCAL:
        path = project / "config" / f"{name}.yaml"
        if not _NAME.match(name) or not path.is_file():
            known = sorted({file.stem for file in (project / "config").glob("*.yaml")} - {"base"})
            raise UsageError(
                f"there is no environment {name!r}: config/{name}.yaml does not exist"
                if _NAME.match(name)
                else f"{name!r} is no environment name",
                hint=f"{choices(name, [LOCAL, *known])}; or write config/<name>.yaml",
            )
        source = source.overlay(read_yaml(path, f"config/{name}.yaml", variables=variables))
    _apply(overrides, source, mark="--set config")
    return _validated(Config, source, problems)


def _validated(section: type[S], source: Source, problems: list[Problem]) -> S | None:
    problems += source.problems
    if not source.value:
        return None
    try:
        return section.model_validate(source.value)
    except ValidationError as error:
        told = {problem.where for problem in source.problems}
        found = problems_of(error, section, source)
        problems += [problem for problem in found if problem.where not in told]
        return None


def _apply(overrides: Sequence[str], source: Source, *, mark: str = "--set") -> None:
    for item in overrides:
        dotted, sign, text = item.partition("=")
        path: KeyPath = tuple(dotted.split("."))
        if not sign or not all(path):
            raise UsageError(
                f"--set {item!r} is not key=value",
                hint="for example --set model.hyperparameters.max_depth=4",
            )
        value: Any = parse_value(text)
        source.put(tuple(dotted.split(".")), value, mark)
