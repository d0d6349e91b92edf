"""Whether a model does better or worse than the config's baseline, and than the present champion."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from lodestar.artifact import tags
from lodestar.artifact.contents import CONTENTS, ArtifactContents, read_contents
from lodestar.artifact.manifest import verify
from lodestar.artifact.store import RunStore
from lodestar.artifact.wrapper import PAYLOAD
from lodestar.core.metrics import find_metric, metric_names
from lodestar.core.performance import Comparison, Rival, compare, not_compared
from lodestar.core.results import Evaluation, MetricEstimate, Task
from lodestar.core.roles import TargetReader
from lodestar.errors import (
    ArtifactError,
    ExternalError,
    Problem,
    SettingsError,
    choices,
    first_line,
)
from lodestar.settings.monitoring import PerformanceMonitoring

__all__ = ["PerformanceJudge", "check_baseline", "degraded", "performance_tags"]

CHAMPION: Literal["champion"] = "champion"
TASKS: tuple[Task, ...] = ("classification", "regression", "causal")


def check_baseline(section: PerformanceMonitoring) -> None:
    """See that every metric of the baseline is one, of any task: a config serves many recipes.

    Raises:
        SettingsError: every name that is none.
    """
    known = sorted({name for task in TASKS for name in metric_names(task)})
    problems = [
        Problem(
            f"there is no metric {name!r}",
            f"config:performance_monitoring.baseline_metrics.{name}",
            choices(name, known),
        )
        for name in section.baseline_metrics
        if not any(find_metric(name, task) for task in TASKS)
    ]
    if problems:
        raise SettingsError(problems)


@dataclass(frozen=True)
class PerformanceJudge:
    """Compares evaluations of one recipe's models, where the config says so."""

    section: PerformanceMonitoring
    store: RunStore
    recipe: str
    target: TargetReader

    def judge(self, evaluation: Evaluation) -> tuple[Comparison, ...]:
        """One comparison per rival that there is; none where monitoring is off.

        A champion that cannot be looked at is `not comparable`, and the comparison says why.
        """
        if not self.section.enabled:
            return ()
        found = []
        if self.section.baseline_metrics:
            found.append(self._compared(evaluation, _baseline(self.section.baseline_metrics)))
        champion = self._champion()
        if isinstance(champion, Comparison):
            found.append(champion)
        elif champion is not None:
            found.append(self._compared(evaluation, champion))
        return tuple(found)

    def _compared(self, evaluation: Evaluation, rival: Rival) -> Comparison:
        limits = self.section.alert_thresholds
        return compare(
            evaluation,
            rival,
            improvement=limits.improvement_threshold,
            degradation=limits.degradation_threshold,
        )

    def _champion(self) -> Rival | Comparison | None:
        """What the champion's artifact says of itself."""
        run_id = None
        try:
            holder = self.store.holder(self.recipe, CHAMPION)
            if holder is None:
                return None
            run_id = holder.run_id
            contents = self._contents(run_id)
        except (ArtifactError, ExternalError) as error:
            return not_compared(CHAMPION, first_line(error), run_id)
        if contents.target != self.target:
            why = "it predicts something else: task, classes or treatment differ"
            return not_compared(CHAMPION, why, run_id)
        metrics = {name: MetricEstimate(**each) for name, each in contents.metrics.items()}
        return Rival(CHAMPION, metrics, contents.training_methodology["test_rows"], run_id)

    def _contents(self, run_id: str) -> ArtifactContents:
        """Read without loading: versions that could not run it here can still be compared."""
        with self.store.opened(run_id) as opened:
            verify(opened.folder, expected=opened.digest)
            return read_contents(opened.folder / PAYLOAD / CONTENTS)


def degraded(comparisons: Iterable[Comparison]) -> bool:
    """Whether any of them says worse."""
    return any(each.verdict == "degraded" for each in comparisons)


def performance_tags(comparisons: Iterable[Comparison], *, stage: str) -> dict[str, str]:
    """The verdicts as tags of a run: `lodestar.performance.train.champion`, and one per metric."""
    found: dict[str, str] = {}
    for each in comparisons:
        key = f"{tags.PERFORMANCE}.{stage}.{each.against}"
        found[key] = each.verdict if not each.why else f"{each.verdict}: {each.why}"
        if each.run_id is not None:
            found[f"{key}.run_id"] = each.run_id
        found |= {f"{key}.{one.metric}": one.verdict for one in each.metrics}
    return found


def _baseline(metrics: Mapping[str, float]) -> Rival:
    return Rival(
        "baseline", {name: MetricEstimate(value, value, value) for name, value in metrics.items()}
    )
