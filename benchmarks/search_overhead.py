"""What the search costs by itself, per trial: asking, reporting, pruning, telling, writing.

The trials are played and take no time, so all that is measured is ours and Optuna's. Each reports at
nine checkpoints. Wall time has the disk's in it (one fsync a line), processor time has not.

    python benchmarks/search_overhead.py [--trials 100]
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from lodestar.adapters.studies.keeper import opened_study
from lodestar.core.metrics import Metric, find_metric
from lodestar.core.tuning.algorithms import pruner_of
from lodestar.core.tuning.ground import SearchGround
from lodestar.core.tuning.result import SearchLimits
from lodestar.core.tuning.search import Search
from lodestar.core.tuning.space import SearchSpace
from lodestar.interface.execution import TrialOutcome, TrialReport, TrialTask, Verdict
from lodestar.settings.recipe import HyperparameterRange

SPACE = {
    "learning_rate": HyperparameterRange(type="float", low=0.01, high=0.3, log=True),
    "n_estimators": HyperparameterRange(type="int", low=50, high=1000),
    "max_depth": HyperparameterRange(type="int", low=3, high=10),
    "subsample": HyperparameterRange(type="float", low=0.5, high=1.0),
}


@dataclass
class Played:
    """An executor whose trials take no time and pretend to have taken a second."""

    capacity: int = 1
    _task: TrialTask | None = None
    _steps: list[int] = field(default_factory=list)
    _stopped: bool = False

    def submit(self, task: TrialTask, *, seconds: float | None) -> None:
        del seconds
        self._task, self._stopped = task, False
        self._steps = list(range(10, 100, 10)) if task.watched else []

    def events(self, *, timeout: float) -> list[TrialReport | TrialOutcome]:
        del timeout
        task = self._task
        if task is None:
            return []
        value = _value(task.hyperparameters, task.split_seed)
        if self._steps:
            step = self._steps.pop(0)
            return [TrialReport(task.number, step, value - (100 - step) / 1000)]
        self._task = None
        if self._stopped:
            return [TrialOutcome(task.number, "stopped", None, 1.0)]
        return [TrialOutcome(task.number, "complete", value, 1.0)]

    def answer(self, number: int, verdict: Verdict) -> None:
        del number
        if verdict != "go on":
            self._steps, self._stopped = [], True

    def halt(self) -> None:
        return

    def close(self) -> None:
        return


def _value(given: Mapping[str, float], seed: int) -> float:
    return 0.9 - (given["learning_rate"] - 0.1) ** 2 - given["max_depth"] / 500 + seed % 7 / 100


def _searched(study: optuna.Study, metric: Metric, limits: SearchLimits) -> None:
    ground = SearchGround(
        study=study,
        metric=metric,
        limits=limits,
        executor=Played(),
        hyperparameters=lambda found, workers: found,
        interrupted=lambda: False,
    )
    Search(ground=ground, space=SearchSpace(SPACE), listener=lambda progress: None).run()


def _measure(kind: str, trials: int, folder: Path) -> None:
    metric = find_metric("roc_auc", "classification")
    if metric is None:
        raise RuntimeError("the metric is gone")
    limits = SearchLimits(n_trials=trials, seconds=3600.0, candidates=1, splits=1)
    pruner = pruner_of(limits)
    place: AbstractContextManager[optuna.Study]
    if kind == "memory":
        place = nullcontext(optuna.create_study(direction="maximize", pruner=pruner))
    else:
        storage = "studies" if kind == "journal" else f"sqlite:///{folder}/studies.db"
        place = opened_study(
            storage, folder, name=kind, direction="maximize", pruner=pruner, resume=False
        )
    with place as study:
        wall, cpu = time.perf_counter(), time.process_time()
        _searched(study, metric, limits)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    each = f"{cpu / trials * 1000:6.1f} ms CPU, {wall / trials * 1000:6.1f} ms wall"
    print(f"{kind:10} {trials} trials   {each} a trial")


def main() -> None:
    """Print a line for each kind of storage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="a few trials, to see that it runs")
    options = parser.parse_args()
    trials = 10 if options.quick else options.trials
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("memory", "journal", "database"):
            _measure(kind, trials, Path(folder))


if __name__ == "__main__":
    main()
