"""Small searches on real estimators, and an executor that plays a script, for the search's tests."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pyarrow as pa

from lodestar.core.learner import Learner
from lodestar.core.metrics import Metric, find_metric
from lodestar.core.models import family_of, import_class
from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.results import Task, Truth
from lodestar.core.splitter import Splitter
from lodestar.core.trainer import strata
from lodestar.core.tuning.algorithms import pruner_of
from lodestar.core.tuning.ground import SearchGround
from lodestar.core.tuning.problem import TrialProblem
from lodestar.core.tuning.result import SearchLimits, TuningResult
from lodestar.core.tuning.search import Search, SearchProgress
from lodestar.core.tuning.space import SearchSpace
from lodestar.execution.local import local_executor
from lodestar.interface.execution import (
    TrialExecutor,
    TrialOutcome,
    TrialReport,
    TrialTask,
    Verdict,
)
from lodestar.settings.recipe import HyperparameterRange, Split

CLASSIFIER = "xgboost.XGBClassifier"


def between(low: float, high: float, *, log: bool = False) -> HyperparameterRange:
    return HyperparameterRange(type="float", low=low, high=high, log=log)


def whole(low: int, high: int) -> HyperparameterRange:
    return HyperparameterRange(type="int", low=low, high=high)


def metric_of(name: str, task: Task = "classification") -> Metric:
    found = find_metric(name, task)
    assert found is not None
    return found


def rows_of(count: int, task: Task, *, classes: int = 2, seed: int = 0) -> tuple[pa.Table, Truth]:
    """Six columns of which three matter, one with nulls, and what is to be learned from them."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, 6))
    signal = values[:, 0] + 0.7 * values[:, 1] * values[:, 2] + random.normal(size=count) * 0.6
    columns = {f"x{position}": pa.array(values[:, position]) for position in range(6)}
    columns["x5"] = pa.array(values[:, 5], mask=random.random(count) < 0.1)
    columns["kind"] = pa.array(random.choice(["red", "green", "blue"], size=count), pa.string())
    table = pa.table(columns)
    if task == "regression":
        return table, Truth(np.exp(signal / 2))
    if task == "causal":
        treatment = random.integers(0, 2, size=count)
        outcome = (signal + treatment * values[:, 3] > 0.3).astype(np.int64)
        return table, Truth(outcome, treatment)
    bounds = np.quantile(signal, np.linspace(0, 1, classes + 1)[1:-1])
    return table, Truth(np.digitize(signal, bounds).astype(np.int64), None, tuple(range(classes)))


def problem_of(
    class_path: str = CLASSIFIER,
    task: Task = "classification",
    metric: str = "roc_auc",
    *,
    rows: int = 300,
    classes: int = 2,
    split: Split | None = None,
) -> TrialProblem:
    """A problem as the trainer makes it, of generated rows."""
    table, truth = rows_of(rows, task, classes=classes)
    cls = import_class(class_path, ["*"], where="", methods=("fit", "predict"))
    return TrialProblem(
        inputs=table,
        truth=truth,
        split_columns=pd.DataFrame(index=pd.RangeIndex(rows)),
        strata=strata(truth),
        learner=Learner(family_of(cls, task), SimpleScaler, 42),
        splitter=Splitter(split or Split(), task=task, timestamp_col="event_timestamp"),
        metric=metric_of(metric, task),
    )


def searching(
    executor: TrialExecutor,
    hyperparameters: Mapping[str, Any],
    metric: Metric,
    limits: SearchLimits,
    *,
    study: optuna.Study | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    listener: Callable[[SearchProgress], None] = lambda progress: None,
    rounds_name: str | None = None,
) -> Search:
    """A search of an executor's trials; in memory unless a study is given."""
    space = SearchSpace(hyperparameters)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ground = SearchGround(
        study=study or optuna.create_study(direction=metric.direction, pruner=pruner_of(limits)),
        metric=metric,
        limits=limits,
        executor=executor,
        hyperparameters=lambda found, workers: {**space.fixed, **found},
        interrupted=interrupted,
    )
    return Search(ground=ground, space=space, listener=listener, rounds_name=rounds_name)


def searched(
    problem: TrialProblem,
    hyperparameters: Mapping[str, Any],
    limits: SearchLimits,
    *,
    study: optuna.Study | None = None,
    workers: int = 1,
) -> TuningResult:
    """Search a problem with real fits."""
    with local_executor(problem, workers=workers, threads=1) as executor:
        name = problem.learner.family.rounds_name(hyperparameters)
        return searching(
            executor, hyperparameters, problem.metric, limits, study=study, rounds_name=name
        ).run()


@dataclass
class Script:
    """An executor that runs nothing: `play` gives a task's value, or the words of its failure.

    None is a trial that its deadline stopped. Outcomes come one after the other; `curve` gives the
    intermediate values of watched trials, `slope` what complete ones say of the correction. With
    `sleeps` a trial takes the time that it says.
    """

    play: Callable[[TrialTask], float | str | None]
    seconds: float = 1.0
    capacity: int = 1
    curve: Callable[[TrialTask], Mapping[int, float]] = lambda task: {}
    slope: Callable[[TrialTask], float | None] = lambda task: None
    submitted: list[TrialTask] = field(default_factory=list)
    allowed: list[float | None] = field(default_factory=list)
    sleeps: bool = False
    halted: bool = False
    _ended: set[int] = field(default_factory=set)
    _queue: list[tuple[TrialTask, list[tuple[int, float]]]] = field(default_factory=list)

    def submit(self, task: TrialTask, *, seconds: float | None) -> None:
        self.submitted.append(task)
        self.allowed.append(seconds)
        reports = sorted(self.curve(task).items()) if task.watched else []
        self._queue.append((task, reports))

    def events(self, *, timeout: float) -> list[TrialReport | TrialOutcome]:
        del timeout
        task, reports = self._queue[0]
        if self.halted or task.number in self._ended:
            self._queue.pop(0)
            return [TrialOutcome(task.number, "stopped", None, self.seconds)]
        if reports:
            step, value = reports.pop(0)
            return [TrialReport(task.number, step, value)]
        self._queue.pop(0)
        if self.sleeps:
            time.sleep(self.seconds)
        played = self.play(task)
        if played is None:
            return [TrialOutcome(task.number, "stopped", None, self.seconds)]
        if isinstance(played, str):
            return [TrialOutcome(task.number, "failed", None, self.seconds, played)]
        slope = self.slope(task)
        return [TrialOutcome(task.number, "complete", played, self.seconds, slope=slope)]

    def answer(self, number: int, verdict: Verdict) -> None:
        if verdict != "go on":
            self._ended.add(number)

    def halt(self) -> None:
        self.halted = True

    def close(self) -> None:
        return
