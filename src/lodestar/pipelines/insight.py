"""What a training run should know about its data and its model besides the metrics."""

from dataclasses import dataclass

import pyarrow as pa

from lodestar.core.importance import PRIMARY_METRIC, permutation_importance, shap_importance
from lodestar.core.leakage import inspect
from lodestar.core.profile import profile
from lodestar.core.results import DataProfile, Importance, LeakageFinding
from lodestar.core.trainer import TrainingResult

__all__ = ["Insight", "gain_insight"]


@dataclass(frozen=True)
class Insight:
    """Leakage findings, the data's profile and the features' importance."""

    findings: tuple[LeakageFinding, ...]
    profile: DataProfile
    importances: tuple[Importance, ...]


def gain_insight(table: pa.Table, result: TrainingResult, *, seed: int) -> Insight:
    """Look at the whole table, and at the model on the held-out rows."""
    roles, split, task = result.roles, result.split, result.target.task
    frame = table.to_pandas()
    # An estimator without probabilities is judged by a metric that needs none.
    known, usual = list(result.evaluation.metrics), PRIMARY_METRIC[task]
    metric = usual if usual in known or not known else known[0]
    held_out = table.select(roles.inputs).take(split.test)
    return Insight(
        findings=inspect(
            frame,
            split,
            feature_cols=list(roles.inputs),
            target=result.truth.target,
            task=task,
            entity_keys=list(roles.entity_keys),
            timestamp_col=roles.timestamp or "",
        ),
        profile=profile(frame, roles.of_columns()),
        importances=(
            *permutation_importance(
                result.model,
                held_out,
                result.truth.at(split.test),
                task=task,
                metric=metric,
                seed=seed,
            ),
            *shap_importance(result.model, held_out, seed=seed),
        ),
    )
