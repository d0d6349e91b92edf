"""Better, worse, or the same as far as anyone can tell: verdicts on metrics, and noise that is none."""

import numpy as np
import pytest

from lodestar.core.evaluator import Evaluator
from lodestar.core.performance import Comparison, MetricVerdict, Rival, compare, not_compared
from lodestar.core.results import (
    ClassificationCurves,
    Evaluation,
    MetricEstimate,
    Predictions,
    Task,
    Truth,
)

CURVES = ClassificationCurves(("no", "yes"), np.eye(2, dtype=np.int64))


def evaluation(
    task: Task = "classification", *, rows: int = 1000, **metrics: tuple[float, float, float]
) -> Evaluation:
    estimates = {name: MetricEstimate(*each) for name, each in metrics.items()}
    return Evaluation(task, rows, estimates, CURVES)


def baseline(**metrics: float) -> Rival:
    return Rival(
        "baseline", {name: MetricEstimate(each, each, each) for name, each in metrics.items()}
    )


def against(made: Evaluation, rival: Rival) -> Comparison:
    return compare(made, rival, improvement=0.02, degradation=-0.01)


def only(found: Comparison) -> MetricVerdict:
    (one,) = found.metrics
    return one


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(0.90, "improved"), (0.866, "unchanged"), (0.845, "unchanged"), (0.80, "degraded")],
)
def test_a_change_counts_from_its_threshold_on(value: float, verdict: str) -> None:
    made = evaluation(accuracy=(value, value - 0.005, value + 0.005))
    found = only(against(made, baseline(accuracy=0.85)))
    assert found.verdict == verdict
    assert found.change == pytest.approx((value - 0.85) / 0.85)


def test_of_many_comparisons_each_needs_more_so_that_all_hold_at_once() -> None:
    made = evaluation(accuracy=(0.80, 0.76, 0.84))
    alone = only(against(made, baseline(accuracy=0.85)))
    thresholds = {"improvement": 0.02, "degradation": -0.01}
    many = only(compare(made, baseline(accuracy=0.85), **thresholds, among=50))
    assert (alone.verdict, many.verdict) == ("degraded", "unchanged")
    # Bonferroni: 0.05 / 50 to both sides is 3.29 standard errors, and 0.05 is 1.96.
    assert alone.low is not None
    assert many.low is not None
    assert alone.change is not None
    ratio = (many.low - alone.change) / (alone.low - alone.change)
    assert ratio == pytest.approx(3.2905 / 1.96, rel=1e-3)


def test_a_change_that_may_be_noise_is_none_however_large() -> None:
    made = evaluation(accuracy=(0.80, 0.70, 0.88))
    found = only(against(made, baseline(accuracy=0.85)))
    assert found.verdict == "unchanged"
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high


def test_lower_is_better_where_the_metric_says_so() -> None:
    made = evaluation("regression", rmse=(8.0, 7.8, 8.2), r2=(0.5, 0.49, 0.51))
    found = {one.metric: one for one in against(made, baseline(rmse=10.0, r2=0.6)).metrics}
    assert found["rmse"].verdict == "improved"
    assert found["rmse"].change == pytest.approx(0.2)
    assert found["r2"].verdict == "degraded"


def test_one_that_is_worse_outweighs_one_that_is_better() -> None:
    made = evaluation("regression", rmse=(8.0, 7.8, 8.2), r2=(0.5, 0.49, 0.51))
    assert against(made, baseline(rmse=10.0, r2=0.6)).verdict == "degraded"
    assert against(made, baseline(rmse=10.0)).verdict == "improved"


def test_negative_values_are_compared_by_their_size() -> None:
    made = evaluation("regression", r2=(-0.1, -0.11, -0.09))
    found = only(against(made, baseline(r2=-0.2)))
    assert found.verdict == "improved"
    assert found.change == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "rival", "why"),
    [
        ("rmse", 3.0, "classification has no rmse"),
        ("roc_auc", 0.9, "roc_auc is not defined on these rows"),
        ("accuracy", 0.0, "relative to 0"),
    ],
)
def test_what_cannot_be_compared_says_why(name: str, rival: float, why: str) -> None:
    found = against(evaluation(accuracy=(0.9, 0.8, 0.95)), baseline(**{name: rival}))
    assert found.verdict == only(found).verdict == "not comparable"
    assert why in only(found).why


def test_without_any_metric_in_common_the_whole_is_not_comparable() -> None:
    assert not_compared("champion", "its server does not answer").verdict == "not comparable"


def test_a_perfect_score_on_few_rows_is_no_proof() -> None:
    champion = Rival("champion", {"accuracy": MetricEstimate(0.96, 0.95, 0.97)}, 1000, "c1")
    few, many = (evaluation(rows=rows, accuracy=(1.0, 1.0, 1.0)) for rows in (20, 2000))
    assert against(few, champion).verdict == "unchanged"
    assert against(many, champion).verdict == "improved"


def judged(seed: int, *, rows: int, noise: float) -> Evaluation:
    """A model whose score is the truth and some noise, judged on rows of its own."""
    draw = np.random.default_rng(seed)
    target = draw.integers(0, 2, rows)
    score = 1 / (1 + np.exp(-(2 * target - 1 + draw.normal(scale=noise, size=rows))))
    predictions = Predictions(
        (score > 0.5).astype(np.int64), np.column_stack([1 - score, score]), (0, 1)
    )
    return Evaluator("classification", seed=seed).evaluate(
        Truth(target, classes=(0, 1)), predictions
    )


def verdicts(noise: float, *, rows: int) -> list[str]:
    """Forty pairs of models, the champion with noise 1."""
    found: list[str] = []
    for seed in range(40):
        champion = judged(1000 + seed, rows=rows, noise=1.0)
        rival = Rival("champion", champion.metrics, champion.rows, "c1")
        found.append(against(judged(seed, rows=rows, noise=noise), rival).verdict)
    return found


def test_equal_models_on_other_rows_raise_no_alarm() -> None:
    found = verdicts(1.0, rows=300)
    assert found.count("degraded") <= 3
    assert found.count("improved") <= 3


def test_a_model_that_is_really_worse_is_found() -> None:
    assert verdicts(1.6, rows=1000).count("degraded") >= 38
