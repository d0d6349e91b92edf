"""Puts a search together: study, workers, limits; and lets Ctrl-C end it with the best so far."""

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from lodestar import __version__
from lodestar.core.trainer import Search
from lodestar.core.tuning.common_splits import CommonSplits, by_share, by_windows
from lodestar.core.tuning.drafts import draft_share
from lodestar.core.tuning.problem import TrialProblem, with_threads
from lodestar.core.tuning.result import SearchLimits, TuningResult
from lodestar.errors import UsageError
from lodestar.execution.traced import traced_trials
from lodestar.factory.recipe import Factory
from lodestar.interface.progress import Progress
from lodestar.settings.config import HyperparameterTuning
from lodestar.settings.loading import Settings
from lodestar.settings.recipe import Recipe

if TYPE_CHECKING:
    from lodestar.core.tuning.search import SearchProgress

__all__ = ["search_of", "study_name"]

# The reference costs three fits.
FEWEST_CORRECTED = 20
ONE_SPLIT = (
    "by time there is one split, and too few rows in it to cut them into windows: the score is the "
    "best of many on it, which flatters it, and has no standard error"
)


def search_of(
    settings: Settings, factory: Factory, data_digest: str, tell: Progress, *, resume: bool
) -> Search | None:
    """The search of a recipe, or None where recipe or config switch it off."""
    if not factory.tunes:
        if resume:
            raise UsageError(
                "there is no search to resume: recipe or config switch it off",
                hint="see hyperparameter_tuning.enabled in both",
            )
        return None

    def search(problem: TrialProblem) -> TuningResult | None:
        result = _search(settings, factory, problem, data_digest, tell, resume=resume)
        tell.stage(f"Training with {'its defaults' if result is None else 'what was chosen'}")
        return result

    return search


def _search(
    settings: Settings,
    factory: Factory,
    problem: TrialProblem,
    data_digest: str,
    tell: Progress,
    *,
    resume: bool,
) -> TuningResult | None:
    from lodestar.core.tuning.algorithms import pruner_of
    from lodestar.core.tuning.ground import SearchGround
    from lodestar.core.tuning.search import NoTrialInTimeError
    from lodestar.core.tuning.search import Search as Exploration

    recipe, config = settings.recipe, settings.environment.config.hyperparameter_tuning
    limits = _limits(settings, config, problem)
    workers, threads = _workers(factory, settings)
    defaults = factory.hyperparameters.values
    problem.reference = with_threads(problem.learner.family, defaults, threads)
    space = factory.search_space()

    name = study_name(settings, data_digest)
    tell.stage("Searching on Ray" if factory.distributes else f"Searching, {workers} at a time")
    if workers > _cores() and not factory.distributes:
        tell.note(f"more trials at a time ({workers}) than cores ({_cores()}): they share them")
    with (
        factory.study(name, problem.metric.direction, pruner_of(limits), resume=resume) as study,
        factory.executor(problem, workers=workers, threads=threads) as executor,
        _interruptible(tell) as interrupted,
    ):
        ground = SearchGround(
            study=study,
            metric=problem.metric,
            limits=limits,
            executor=traced_trials(executor, tell.span),
            hyperparameters=lambda found, borrowed: with_threads(
                problem.learner.family,
                {**space.fixed, **found},
                threads if factory.distributes else threads * borrowed,
            ),
            interrupted=interrupted,
        )
        exploration = Exploration(
            ground=ground,
            space=space,
            listener=partial(_show, tell),
            rounds_name=problem.learner.family.rounds_name(recipe.model.hyperparameters),
        )
        try:
            result = exploration.run()
        except NoTrialInTimeError:
            if recipe.hyperparameter_tuning.on_timeout == "error":
                raise
            tell.note("no trial ended in time: the recipe trains with its defaults")
            return None
    tell.detail(f"{len(result.history)} trials, {result.count('pruned')} pruned")
    if recipe.split.method == "time" and limits.windows is None:
        result = replace(result, notes=(*result.notes, ONE_SPLIT))
    for note in result.notes:
        tell.note(note)
    return result


def _show(tell: Progress, progress: "SearchProgress") -> None:
    best = "" if progress.best is None else f", best {progress.best:.4f}"
    failed = f", {progress.failed} failed" if progress.failed else ""
    tell.detail(
        f"{progress.done}/{progress.total} {progress.stage}, {progress.pruned} pruned{failed}"
        f"{best}, at most {progress.seconds_left:.0f} s left"
    )


def _limits(
    settings: Settings, config: HyperparameterTuning, problem: TrialProblem
) -> SearchLimits:
    asked, split = settings.recipe.hyperparameter_tuning, settings.recipe.split
    common = _common_splits(settings.recipe, problem)
    train_size = 1 - split.validation_size
    # A trial that stops early settles the number of rounds, which must be that of all rows.
    drafts = config.drafts == "auto" and asked.early_stopping_rounds is None
    return SearchLimits(
        n_trials=asked.n_trials,
        seconds=float(config.timeout),
        candidates=asked.finalists.candidates,
        splits=common.count,
        validation_size=common.validation_size,
        finalist_rows=common.train_size / train_size,
        windows=common.windows,
        seed=split.seed,
        sampler=config.sampler,
        pruning=config.pruning.enabled,
        pruner=config.pruning.algorithm,
        startup_trials=config.pruning.n_startup_trials,
        warmup_percent=config.pruning.n_warmup_steps,
        patience=asked.early_stopping_rounds,
        draft=draft_share(round(len(problem.truth) * train_size)) if drafts else None,
        boosts=problem.learner.family.boosts(settings.recipe.model.hyperparameters),
        # By time all trials share one split, and few trials are not worth a reference.
        corrected=split.method != "time" and asked.n_trials >= FEWEST_CORRECTED,
        # Shares of groups are not shares of rows, and by time the latest rows may be of another kind.
        gains=split.method not in {"group", "time"},
    )


def _common_splits(recipe: Recipe, problem: TrialProblem) -> CommonSplits:
    own, splits = recipe.split.validation_size, recipe.hyperparameter_tuning.finalists.splits
    rows = len(problem.truth)
    if recipe.split.method == "time":
        return by_windows(rows, splits, own, lambda count: len(problem.windows(count)))
    if recipe.split.method == "group":  # shares are of groups, and may be few
        return CommonSplits(splits, own, 1 - own)
    return by_share(rows, splits, own, classes=len(problem.truth.classes))


def study_name(settings: Settings, data_digest: str, version: str = __version__) -> str:
    """Recipe, what it searches, the data and our version: another of any of them is another study.

    Of our version, as the next one may fit trials in another way, which cannot be compared.
    """
    recipe = settings.recipe
    logic = recipe.model_dump(mode="json", exclude={"hyperparameter_tuning": {"n_trials"}})
    told = json.dumps([logic, version], sort_keys=True)
    digest = hashlib.sha256(told.encode()).hexdigest()
    return f"{settings.loaded.name}-{digest[:8]}-{data_digest[:12]}"


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _workers(factory: Factory, settings: Settings) -> tuple[int, int]:
    """How many trials at a time, and how many threads each may use; -1 is whatever a cluster has."""
    config = settings.environment.config
    jobs = config.hyperparameter_tuning.parallelization.n_jobs
    if factory.distributes:
        return jobs, config.execution.ray.cpus_per_worker
    workers = _cores() if jobs == -1 else jobs
    return workers, max(1, _cores() // workers)


@contextmanager
def _interruptible(tell: Progress) -> Iterator[Callable[[], bool]]:
    """Ctrl-C once: stop searching and finish with the best so far; twice: abort, resumable."""
    asked, told = threading.Event(), threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def handle(number: int, frame: object) -> None:
        del number, frame
        if asked.is_set():
            raise KeyboardInterrupt("finished trials are kept: train --resume goes on from there")
        asked.set()

    def interrupted() -> bool:
        # Said here and not in the handler, which may have come in the middle of a line.
        if asked.is_set() and not told.is_set():
            told.set()
            tell.note(
                "stopping the search; Ctrl-C again aborts (train --resume goes on from there)"
            )
        return asked.is_set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
