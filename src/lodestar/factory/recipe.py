"""From recipe and config to the objects that learn."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from lodestar.adapters.registry import scheme_of
from lodestar.core.augmenter import Augmenter
from lodestar.core.evaluator import Evaluator
from lodestar.core.features import selection_problems
from lodestar.core.importance import PRIMARY_METRIC
from lodestar.core.learner import Learner
from lodestar.core.metrics import Metric, find_metric, metric_names
from lodestar.core.models import Family, family_of, import_class
from lodestar.core.preprocessor import SimpleScaler, TransformerPreprocessor
from lodestar.core.splitter import Splitter
from lodestar.core.trainer import Search, Trainer
from lodestar.core.tuning.problem import TrialProblem
from lodestar.core.tuning.space import SearchSpace
from lodestar.errors import Problem, SettingsError, choices
from lodestar.factory.environment import EnvironmentFactory, Loader
from lodestar.interface.execution import TrialExecutor
from lodestar.interface.learning import Preprocessor
from lodestar.settings.loading import Environment, LoadedRecipe
from lodestar.settings.recipe import HyperparameterRange, Transformer
from lodestar.sql import parse_query

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner

__all__ = ["Factory", "Hyperparameters"]

Direction: TypeAlias = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Hyperparameters:
    """What the estimator is built with, and how ranges were settled."""

    values: Mapping[str, Any]
    notes: tuple[str, ...]


class Factory(EnvironmentFactory):
    """Objects for training one recipe in one environment."""

    def __init__(
        self, environment: Environment, loaded: LoadedRecipe, *, work: str = "train"
    ) -> None:
        super().__init__(environment, work=f"{work} {loaded.name}")
        self._loaded = loaded
        self._recipe = loaded.recipe

    def preflight(self) -> None:
        """Check all that can be checked before any data is read.

        Raises:
            SettingsError: every problem at once.
        """
        checks: tuple[Callable[[], object], ...] = (
            lambda: self.loader,
            self._selection,
            lambda: self.hyperparameters,
            self._new_preprocessor,
            self.metric,
            self._early_stopping,
        )
        problems: list[Problem] = []
        for check in checks:
            try:
                check()
            except SettingsError as error:
                problems += [found for found in error.problems if found not in problems]
        if problems:
            raise SettingsError(problems)

    @cached_property
    def loader(self) -> Loader:
        """The recipe's query or data URI."""
        section = self._recipe.loader
        where = self._loaded.where("loader", "source_uri")
        if not section.source_uri.endswith(".sql"):
            return Loader(self._loaded.name, None, self._data_uri(section.source_uri, where))
        path = (self._project / section.source_uri).resolve()
        if not path.is_relative_to(self._project):
            raise SettingsError.one("lies outside the project", where=where)
        if not path.is_file():
            known = sorted(
                file.relative_to(self._project).as_posix()
                for file in self._project.glob("recipes/**/*.sql")
            )
            raise SettingsError.one(
                "there is no such SQL file", where=where, hint=choices(section.source_uri, known)
            )
        text = path.read_text(encoding="utf-8")
        query = parse_query(text, section.dialect, where=path.relative_to(self._project).as_posix())
        return Loader(self._loaded.name, query, None)

    def _data_uri(self, uri: str, where: str) -> str:
        """A recipe names data by a path below the project: it knows no machine."""
        local = scheme_of(uri) in {"", "file"}
        path = self._project / unquote(urlsplit(uri).path) if local else self._project
        if not path.resolve().is_relative_to(self._project):
            raise SettingsError.one(
                "lies outside the project", where=where, hint="put the file below the project"
            )
        return uri

    @cached_property
    def family(self) -> Family:
        """How the recipe's estimator is handled."""
        task = self._recipe.data_interface.task_type
        cls = import_class(
            self._recipe.model.class_path,
            self._config.model.allowed_modules,
            where=self._loaded.where("model", "class_path"),
            methods=("fit", "predict"),
        )
        family = family_of(cls, task)
        boosts = family.name != "generic"
        if task == "classification" and boosts and not hasattr(cls, "predict_proba"):
            raise SettingsError.one(
                f"{cls.__name__} is no classifier",
                where=self._loaded.where("model", "class_path"),
                hint="choose a classifier's class_path, or another task_type",
            )
        return family

    @cached_property
    def hyperparameters(self) -> Hyperparameters:
        """Fixed values as they are; a range gives its default, else the estimator's own.

        Raises:
            SettingsError: names that the estimator does not take, every one of them.
        """
        given = self._recipe.model.hyperparameters
        if problems := [*self._unknown(given), *self._without_validation(given)]:
            raise SettingsError(problems)
        values: dict[str, Any] = {}
        notes: list[str] = []
        unset: list[str] = []
        for name, value in given.items():
            if not isinstance(value, HyperparameterRange):
                values[name] = value
            elif value.default is not None:
                values[name] = value.default
                notes.append(f"{name} takes its default {value.default!r}, as the search is off")
            else:
                unset.append(name)
        if self._recipe.hyperparameter_tuning.early_stopping_rounds is not None:
            notes.append("nothing is stopped early, as the search is off: all rounds are trained")
        if unset:
            names = ", ".join(unset)
            notes.append(f"{names}: the estimator's own defaults, as the search is off")
        return Hyperparameters(values, tuple(notes))

    def _unknown(self, given: Iterable[str]) -> Iterator[Problem]:
        """Names that the estimator does not take."""
        accepted = self.family.parameters()
        for name in given:
            if accepted is not None and name not in accepted:
                yield self._loaded.problem(
                    f"{self.family.cls.__name__} takes no hyperparameter {name!r}",
                    "model",
                    "hyperparameters",
                    name,
                    hint=choices(name, sorted(accepted)),
                )

    def _without_validation(self, given: Iterable[str]) -> Iterator[Problem]:
        """Names that the estimator takes only where `fit` is given validation rows."""
        instead = "search the number of rounds; pruning ends weak trials early"
        if self.family.rounds:
            instead = (
                "hyperparameter_tuning.early_stopping_rounds does it in the trials, and the model "
                "gets the rounds that were best"
            )
        for name in given:
            if name in self.family.needs_validation:
                yield self._loaded.problem(
                    f"{name} needs validation rows inside fit, and there are none",
                    "model",
                    "hyperparameters",
                    name,
                    hint=f"leave it out: {instead}",
                )

    def _places(self) -> dict[str, str]:
        """Where the recipe gives each hyperparameter, and at "" all of them."""
        given = {name: (name,) for name in self._recipe.model.hyperparameters}
        return {
            name: self._loaded.where("model", "hyperparameters", *key)
            for name, key in {"": (), **given}.items()
        }

    def preprocessor(self) -> Callable[[], Preprocessor]:
        """Makes an unfitted preprocessor each time it is called."""
        section = self._recipe.preprocessor
        if not isinstance(section, Transformer):
            params = section.params
            return partial(
                SimpleScaler,
                criterion_col=params.criterion_col,
                exclude_cols=params.exclude_cols,
                max_categories=params.max_categories,
            )
        cls = import_class(
            section.class_path,
            self._config.model.allowed_modules,
            where=self._loaded.where("preprocessor", "class_path"),
            methods=("fit", "transform"),
        )
        return partial(TransformerPreprocessor.of, cls, section.params)

    def _new_preprocessor(self) -> Preprocessor:
        try:
            return self.preprocessor()()
        except TypeError as error:
            where = self._loaded.where("preprocessor", "params")
            raise SettingsError.one(f"it cannot be made: {error}", where=where) from error

    def augmenter(self) -> Augmenter:
        """The recipe's features, taken from the environment's feature store where it has one."""
        augmenter = Augmenter([item.plain() for item in self._recipe.augmenter.features])
        if self.feature_store is None or not augmenter.selection:
            return augmenter
        timestamp = self._recipe.data_interface.event_timestamp_col
        return augmenter.bound(self.feature_store, self.features, timestamp=timestamp)

    def _selection(self) -> None:
        """See that what the recipe takes is declared; in LOCAL where anything is."""
        if self._config.environment.augmenter == "pass_through" and not self.features.views:
            return
        problems = [
            self._loaded.problem(
                found.what,
                "augmenter",
                "features",
                found.item,
                found.key,
                *found.inside,
                hint=found.hint,
            )
            for found in selection_problems(self.features, self._recipe.augmenter.features)
        ]
        if problems:
            raise SettingsError(problems)

    def augmenter_snapshot(self) -> dict[str, Any]:
        """The recipe's section, what joined its features, and the declarations that it goes by."""
        selection = [item.plain() for item in self._recipe.augmenter.features]
        section: dict[str, Any] = {"type": self._recipe.augmenter.type, "features": selection}
        if selection:
            section["joined_by"] = self.joined_by
        taken = [item.feature_namespace for item in self._recipe.augmenter.features]
        views = self.features.views
        if not taken or not set(taken) <= views.keys():
            return section
        return {**section, "views": {name: views[name].plain() for name in taken}}

    @property
    def tunes(self) -> bool:
        """Whether recipe and config both enable the search, and there is something to search."""
        enabled = self._recipe.hyperparameter_tuning.enabled
        allowed = self._config.hyperparameter_tuning.enabled
        return enabled and allowed and bool(self.search_space().ranges)

    def search_space(self) -> SearchSpace:
        """The recipe's ranges, and its fixed values."""
        return SearchSpace(self._recipe.model.hyperparameters)

    def study(
        self, name: str, direction: Direction, pruner: "BasePruner", *, resume: bool
    ) -> "AbstractContextManager[Study]":
        """Where the search is kept."""
        from lodestar.adapters.studies.keeper import opened_study

        storage = self._config.hyperparameter_tuning.storage.get_secret_value()
        return opened_study(
            storage, self._project, name=name, direction=direction, pruner=pruner, resume=resume
        )

    def executor(
        self, problem: TrialProblem, *, workers: int, threads: int
    ) -> AbstractContextManager[TrialExecutor]:
        """What runs the search's trials; `workers` of -1 are as many as a cluster has room for."""
        if self.distributes:
            from lodestar.execution.ray_trials import ray_executor

            count = None if workers == -1 else workers
            return ray_executor(problem, self._config.execution.ray, workers=count)
        from lodestar.execution.local import local_executor

        return local_executor(problem, workers=workers, threads=threads)

    def trainer(self, search: Search | None = None) -> Trainer:
        """Everything that learning takes; with a search it is tuned first."""
        data, split = self._recipe.data_interface, self._recipe.split
        return Trainer(
            learner=Learner(self.family, self.preprocessor(), split.seed, self._places()),
            metric=self.metric(),
            search=search,
            splitter=Splitter(split, task=data.task_type, timestamp_col=data.event_timestamp_col),
            evaluator=self.evaluator(),
            hyperparameters=self.hyperparameters.values,
            split_columns=tuple(
                name for name in (split.group_col, data.event_timestamp_col) if name is not None
            ),
        )

    def _early_stopping(self) -> None:
        """See that the estimator's rounds can be watched, if they are to be stopped."""
        asked = self._recipe.hyperparameter_tuning.early_stopping_rounds
        problem = self.family.unstoppable(self._recipe.model.hyperparameters)
        if asked is not None and problem is not None:
            raise SettingsError.one(
                problem,
                where=self._loaded.where("hyperparameter_tuning", "early_stopping_rounds"),
                hint="else leave it out; XGBoost, LightGBM, CatBoost and scikit-learn's "
                "GradientBoosting can be",
            )

    def evaluator(self) -> Evaluator:
        """Judges held-out rows."""
        return Evaluator(self._recipe.data_interface.task_type, seed=self._recipe.split.seed)

    def metric(self) -> Metric:
        """What the search optimises: the recipe's metric, else the task's usual one.

        Raises:
            SettingsError: no such metric for the task, or the wrong direction for it.
        """
        tuning = self._recipe.hyperparameter_tuning
        task = self._recipe.data_interface.task_type
        metric = find_metric(tuning.metric or PRIMARY_METRIC[task], task)
        if metric is None:
            raise SettingsError(
                [
                    self._loaded.problem(
                        f"there is no metric {tuning.metric!r} for {task}",
                        "hyperparameter_tuning",
                        "metric",
                        hint=choices(tuning.metric or "", metric_names(task)),
                    )
                ]
            )
        if tuning.direction not in (None, metric.direction):
            raise SettingsError(
                [
                    self._loaded.problem(
                        f"{metric.name} is better when {metric.direction}d, not {tuning.direction}d",
                        "hyperparameter_tuning",
                        "direction",
                        hint=f"write {metric.direction}, or leave it out",
                    )
                ]
            )
        return metric
