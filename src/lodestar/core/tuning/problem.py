"""What trials are judged on: the training rows, split anew for each, fitted on its train part alone."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from lodestar.core.learner import Learner, TrainRows
from lodestar.core.metrics import Metric
from lodestar.core.models import Family
from lodestar.core.models.watching import Patience, StoppedError, Watch
from lodestar.core.results import IntArray, Predictions, Truth
from lodestar.core.splitter import Split, Splitter
from lodestar.core.tuning.common_splits import fold_of
from lodestar.core.tuning.drafts import some_of, thinned
from lodestar.core.tuning.reference import Reference, cross_fitted
from lodestar.errors import LodestarError
from lodestar.interface.execution import TrialOutcome, TrialTask
from lodestar.interface.learning import FeatureMatrix

__all__ = ["TrialProblem", "with_threads"]

State: TypeAlias = Literal["complete", "stopped", "failed"]
# What libraries call their number of threads.
THREADS = ("n_jobs", "thread_count", "nthread")
# scikit-learn 1.8 still takes the name here, warns, and uses one thread whatever it is told.
DEAF = "LogisticRegression"
THREAD_ALIASES = frozenset({*THREADS, "nthreads", "num_threads", "num_thread"})


@dataclass(frozen=True)
class _Prepared:
    """One split's two parts, transformed by a preprocessor that saw the train part alone.

    `of`: what of its task it was made for.
    """

    of: tuple[Any, ...]
    train: TrainRows
    validation: FeatureMatrix
    truth: Truth
    judges: IntArray


@dataclass
class _Trial:
    """One that runs: since when, and what its score is to be corrected by."""

    number: int
    patience: Patience | None
    offset: float = 0.0
    slope: float | None = None
    began: float = field(default_factory=time.monotonic)

    def ended(self, state: State, value: float | None = None, error: str = "") -> TrialOutcome:
        rounds = self.patience.after if self.patience and value is not None else None
        seconds = time.monotonic() - self.began
        return TrialOutcome(
            self.number,
            state,
            value,
            seconds,
            error,
            rounds=rounds,
            offset=self.offset,
            slope=self.slope,
        )


@dataclass
class TrialProblem:
    """The training part of the data, and everything that one trial does with it.

    `reference`: hyperparameters of a model that says how hard splits are; without them no value is
    corrected.
    """

    inputs: pa.Table
    truth: Truth
    split_columns: pd.DataFrame
    strata: NDArray[Any] | None
    learner: Learner
    splitter: Splitter
    metric: Metric
    reference: Mapping[str, Any] | None = None
    _last: _Prepared | None = None
    _measured: Reference | None = None

    def run(
        self, task: TrialTask, tell: Callable[[int, float], None], overdue: Callable[[], bool]
    ) -> TrialOutcome:
        """Fit on the split's train part, judge on its validation part.

        `tell` is given intermediate values, and raises StoppedError where the trial shall end;
        `overdue` says so between them.
        """
        try:
            reference = self._reference(overdue) if task.correction is not None else None
        except StoppedError:
            return TrialOutcome(task.number, "stopped", None, 0.0)
        trial = _Trial(task.number, self._patience(task))
        try:
            if overdue():
                return trial.ended("stopped")
            prepared = self._prepare(task)
            if reference is not None and task.correction is not None:
                trial.offset = task.correction * reference.offset(prepared.judges)
            watch = Watch(
                metric=self.metric.name,
                features=prepared.validation,
                truth=prepared.truth,
                classes=self.truth.classes,
                score=lambda truth, said: self._score(truth, said) - trial.offset,
                tell=tell,
                overdue=overdue,
                looks=task.watched,
                patience=trial.patience,
            )
            value, said = self._value(prepared, task, watch)
            if reference is not None and said is not None:
                trial.slope = reference.slope(prepared.judges, said)
        except StoppedError:
            return trial.ended("stopped")
        except Exception as error:  # noqa: BLE001 -- the estimator's own code: its trial fails, not the search
            return trial.ended("failed", error=_worded(error))
        if not np.isfinite(value):
            return trial.ended(
                "failed", error=f"{self.metric.name} is {value} on its validation rows"
            )
        return trial.ended("complete", value)

    def _patience(self, task: TrialTask) -> Patience | None:
        if task.patience is None:
            return None
        return Patience(task.patience, maximize=self.metric.direction == "maximize")

    def _value(
        self, prepared: _Prepared, task: TrialTask, watch: Watch
    ) -> tuple[float, Predictions | None]:
        """The score, and the predictions that it is of, unless it was at its best before the end."""
        given = task.hyperparameters
        if task.draft is not None or task.coarse:
            given = self.learner.family.drafted(given)
        if task.strided:
            given = self.learner.family.strided(given)
        if task.rounds is not None:
            given = self.learner.family.shortened(given, task.rounds)
        model = self.learner.single_training_iteration(prepared.train, given, watch=watch)
        if watch.patience is not None:
            return watch.patience.best, None
        # Whatever the clock says by now: the work is done, and its value costs next to nothing.
        said = model.predict(prepared.validation)
        return watch.score(prepared.truth, said), said

    def _score(self, truth: Truth, predictions: Predictions) -> float:
        return float(self.metric.compute(truth, predictions))

    def _prepare(self, task: TrialTask) -> _Prepared:
        wanted = (task.split_seed, task.draft, task.share, task.judges, task.window)
        if self._last is not None and self._last.of == wanted:
            return self._last
        split = self._split(task)
        if task.draft is not None:
            split = thinned(split, self.strata, task.draft, seed=task.split_seed)
        if task.share is not None:
            chooser = np.random.default_rng(task.split_seed)
            split = replace(split, train=some_of(split.train, self.strata, task.share, chooser))
        train = self.learner.prepare(self.inputs.take(split.train), self.truth.at(split.train))
        validation = train.preprocessor.transform(
            self.inputs.take(split.test), dtype=self.learner.family.dtype
        )
        self._last = _Prepared(wanted, train, validation, self.truth.at(split.test), split.test)
        return self._last

    def windows(self, count: int) -> list[Split]:
        """So many windows of time at most, each with what came before it."""
        return self.splitter.windows(
            self.split_columns, self.strata, np.arange(len(self.truth)), count=count
        )

    def _split(self, task: TrialTask) -> Split:
        if task.window is not None:
            number, count = task.window
            return self.windows(count)[number]
        return self.splitter.validation(
            self.split_columns,
            self.strata,
            np.arange(len(self.truth)),
            seed=task.split_seed,
            share=task.judges,
            fold=None if task.judges is None else fold_of(task.split_seed, task.judges),
        )

    def _reference(self, overdue: Callable[[], bool]) -> Reference | None:
        """Fitted once, by the first trial; none where the estimator refuses it, on any worker alike."""
        if self._measured is None and self.reference is not None:
            try:
                self._measured = cross_fitted(
                    self.inputs,
                    self.truth,
                    self.strata,
                    learner=self.learner,
                    metric=self.metric,
                    hyperparameters=self.reference,
                    overdue=overdue,
                )
            except StoppedError:
                raise
            except Exception:  # noqa: BLE001 -- the estimator's own code: its defaults may be no choice
                self.reference = None
        return self._measured


def _worded(error: Exception) -> str:
    if isinstance(error, LodestarError):
        return f"{error.where}: {error.what}" if error.where else error.what
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


def with_threads(
    family: Family, hyperparameters: Mapping[str, Any], threads: int
) -> dict[str, Any]:
    """Tell the estimator how many threads it has, where it takes that and the recipe is silent."""
    accepted = family.accepted or frozenset()
    names = [name for name in THREADS if name in accepted]
    deaf = any(base.__name__ == DEAF for base in family.cls.__mro__)
    if not names or deaf or THREAD_ALIASES & hyperparameters.keys():
        return dict(hyperparameters)
    return {**hyperparameters, names[0]: threads}
