"""Aliases (`champion`) in MLflow's model registry: one registered model per recipe, a version per run.

MLflow sets an alias atomically, so that readers see the old holder or the new one. Who held it before
is a tag of the registered model: the versions in the order in which they held it, the present one last.
The tag is written beside the alias and not with it; what it says beyond the present holder did not
come about, and does not count.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from lodestar.artifact import tags
from lodestar.artifact.tracking import Connection
from lodestar.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.tracking import MlflowClient

    from lodestar.artifact.plain_client import PlainClient, PlainModel

    AnyModel: TypeAlias = RegisteredModel | PlainModel

__all__ = ["AliasLookup", "Aliases", "Holder", "Moved"]

MOST_HISTORY = 100
MOST_LISTED = 12
_PAGE = 100


@dataclass(frozen=True)
class Holder:
    """A run that has, or had, an alias, as a version of its recipe's registered model."""

    model: str
    recipe: str
    alias: str
    version: str
    run_id: str


@dataclass(frozen=True)
class Moved:
    """Who has an alias now, and who had it before; they are one where nothing had to change."""

    now: Holder
    before: Holder | None


class AliasLookup:
    """The aliases of one experiment's runs, to be read."""

    def __init__(self, client: "MlflowClient | PlainClient", experiment_name: str) -> None:
        self._reader = client
        self._experiment_name = experiment_name

    def names(self) -> list[str]:
        """All of them, as `recipe@alias`."""
        return sorted(
            f"{_recipe_of(model)}@{alias}" for model in self._models() for alias in model.aliases
        )

    def by_run(self) -> dict[str, tuple[str, ...]]:
        """Run id → its aliases."""
        found: dict[str, tuple[str, ...]] = {}
        for model in self._models():
            for alias in sorted(model.aliases):
                run_id = self._holder(model, alias).run_id
                found[run_id] = (*found.get(run_id, ()), alias)
        return found

    def resolve(self, alias: str, recipe: str | None) -> Holder:
        """Who has an alias: of the given recipe, else of the only recipe that has such an alias.

        Raises:
            UsageError: nobody, or runs of several recipes; with the aliases that there are.
        """
        models = self._models()
        found = [
            model
            for model in models
            if alias in model.aliases and recipe in {None, _recipe_of(model)}
        ]
        if len(found) == 1:
            return self._holder(found[0], alias)
        asked = alias if recipe is None else f"{recipe}@{alias}"
        known = sorted(f"{_recipe_of(model)}@{name}" for model in models for name in model.aliases)
        if found:
            several = [f"{_recipe_of(model)}@{alias}" for model in found]
            raise UsageError(
                f"{asked!r} is an alias of several recipes", hint=f"say which: {', '.join(several)}"
            )
        raise UsageError(
            f"{asked!r} is no run of this project and no alias",
            hint=f"aliases: {', '.join(known[:MOST_LISTED]) or 'there are none'}; "
            "lodestar promote makes one, lodestar runs list shows the runs",
        )

    def holder(self, recipe: str, alias: str) -> Holder | None:
        """Who has a recipe's alias now."""
        model = self._model(recipe)
        return self._holder(model, alias) if model and alias in model.aliases else None

    def _models(self) -> list["AnyModel"]:
        mark = '"' if "'" in self._experiment_name else "'"
        wanted = f"tags.`{tags.EXPERIMENT}` = {mark}{self._experiment_name}{mark}"
        found: list[AnyModel] = []
        token: str | None = None
        while True:
            page = self._reader.search_registered_models(wanted, _PAGE, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _holder(self, model: "AnyModel", alias: str) -> Holder:
        version = str(model.aliases[alias])
        run_id = self._reader.get_model_version(model.name, version).run_id
        return Holder(model.name, _recipe_of(model), alias, version, str(run_id))

    def _model(self, recipe: str) -> "AnyModel | None":
        name = self._name(recipe)
        return next((model for model in self._models() if model.name == name), None)

    def _name(self, recipe: str) -> str:
        """`experiment.recipe`; a name that MLflow would not take, or could mean another, gets a mark."""
        plain = f"{self._experiment_name}.{recipe}"
        safe = re.sub(r"[^A-Za-z0-9_.-]", "_", plain)[:150]
        if safe == plain and "." not in self._experiment_name:
            return safe
        mark = hashlib.sha256(f"{self._experiment_name}\n{recipe}".encode()).hexdigest()[:8]
        return f"{safe}-{mark}"


class Aliases(AliasLookup):
    """The same, to be moved."""

    def __init__(self, connection: Connection, experiment_name: str) -> None:
        super().__init__(connection.client, experiment_name)
        self._client = connection.client
        self._connection = connection

    def move(self, recipe: str, alias: str, run: "Run") -> Moved:
        """Give a run the alias, registering it where it is not; the holder before is kept in mind."""
        before = self.holder(recipe, alias)
        model = self._registered(recipe)
        version = self._version_of(model, run)
        now = Holder(model.name, recipe, alias, str(version.version), run.info.run_id)
        if before is not None and before.version == now.version:
            return Moved(now, before)
        self._remember(model, alias, [*_history(model, alias), now.version])
        self._client.set_registered_model_alias(model.name, alias, now.version)
        return Moved(now, before)

    def back(self, alias: str, recipe: str | None) -> Moved:
        """Give the alias back to whoever had it before the present holder.

        Raises:
            UsageError: nobody has it, or nobody had it before.
        """
        before = self.resolve(alias, recipe)
        model = self._client.get_registered_model(before.model)
        history = _history(model, alias)[:-1]
        there = {str(version.version) for version in self._versions(model)}
        while history and (history[-1] not in there or history[-1] == before.version):
            history.pop()  # deleted in MLflow meanwhile
        if not history:
            raise UsageError(
                f"nobody had {alias} of {before.recipe} before run {before.run_id}",
                hint=f"lodestar promote --run-id … --alias {alias} gives it to another run",
            )
        self._client.set_registered_model_alias(model.name, alias, history[-1])
        self._remember(model, alias, history)
        return Moved(self._holder(self._client.get_registered_model(model.name), alias), before)

    def _registered(self, recipe: str) -> "RegisteredModel":
        """The recipe's registered model, made where there is none; another process may be faster."""
        from mlflow.exceptions import MlflowException

        name = self._name(recipe)
        marks = {tags.EXPERIMENT: self._experiment_name, tags.RECIPE: recipe}
        try:
            self._client.create_registered_model(name, tags=marks)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        model = self._client.get_registered_model(name)
        for key, value in marks.items():
            if model.tags.get(key) != value:  # it was made in MLflow itself
                self._client.set_registered_model_tag(name, key, value)
        return model

    def _version_of(self, model: "RegisteredModel", run: "Run") -> "ModelVersion":
        """The run's version; made where there is none, and never a second one."""
        from lodestar.artifact.publishing import model_of

        run_id = run.info.run_id
        found = [version for version in self._versions(model) if version.run_id == run_id]
        if not found:
            logged = model_of(self._connection, run)
            if logged is None:
                raise ArtifactError(f"run {run_id} has no complete artifact")
            # A database asks MLflow's default store for models:/ …, which may be another one.
            source = (
                f"models:/{logged.model_id}"
                if self._connection.over_http
                else logged.artifact_location
            )
            self._client.create_model_version(
                model.name,
                source,
                run_id=run_id,
                tags={tags.DIGEST: run.data.tags.get(tags.DIGEST, "")},
                await_creation_for=0,
                model_id=logged.model_id,
            )
            # Asked for: the request may have been sent twice, or by another process too.
            found = [version for version in self._versions(model) if version.run_id == run_id]
            for other in sorted(found, key=_number)[1:]:
                self._client.delete_model_version(model.name, str(other.version))
        return min(found, key=_number)

    def _versions(self, model: "RegisteredModel") -> list["ModelVersion"]:
        found: list[ModelVersion] = []
        token: str | None = None
        while True:
            page = self._client.search_model_versions(f"name = '{model.name}'", page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _remember(self, model: "RegisteredModel", alias: str, history: Sequence[str]) -> None:
        text = json.dumps(history[-MOST_HISTORY:])
        self._client.set_registered_model_tag(model.name, f"{tags.HISTORY}{alias}", text)


def _number(version: "ModelVersion") -> int:
    return int(version.version)


def _recipe_of(model: "AnyModel") -> str:
    return str(model.tags.get(tags.RECIPE, model.name))


def _history(model: "AnyModel", alias: str) -> list[str]:
    """The versions that held the alias in turn, ending with the present holder."""
    try:
        known = [
            str(version) for version in json.loads(model.tags.get(f"{tags.HISTORY}{alias}", "[]"))
        ]
    except (ValueError, TypeError):
        known = []
    now = model.aliases.get(alias)
    if now is None:
        return []
    if str(now) not in known:
        return [*known, str(now)]
    last = len(known) - 1 - known[::-1].index(str(now))
    return known[: last + 1]
