import subprocess
import sys
import time

import numpy as np
import pytest

from lodestar.core.evaluator import Evaluator
from lodestar.core.metrics import find_metric, metric_names
from lodestar.core.results import (
    CausalCurves,
    ClassificationCurves,
    Predictions,
    RegressionCurves,
    Task,
    Truth,
)
from lodestar.errors import DataError


def binary(rows: int = 2_000, seed: int = 0) -> tuple[Truth, Predictions]:
    rng = np.random.default_rng(seed)
    target = rng.integers(0, 2, rows)
    positive = np.clip(0.7 * rng.random(rows) + 0.3 * target, 0, 1)
    probabilities = np.c_[1 - positive, positive]
    return (
        Truth(target, classes=("no", "yes")),
        Predictions((positive > 0.5).astype(int), probabilities, ("no", "yes")),
    )


def multiclass() -> tuple[Truth, Predictions]:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 4, 500)
    scores = rng.random((500, 4)) + np.eye(4)[target]
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    return Truth(target, classes=tuple("abcd")), Predictions(
        scores.argmax(axis=1), probabilities, tuple("abcd")
    )


def measured(rows: int = 3_000) -> tuple[Truth, Predictions]:
    rng = np.random.default_rng(0)
    target = rng.normal(5, 1, rows)
    return Truth(target), Predictions(target + rng.normal(0, 1, rows))


def treated() -> tuple[Truth, Predictions]:
    rng = np.random.default_rng(0)
    treatment = (rng.random(3_000) < 0.3).astype(np.int64)
    effect = rng.random(3_000)
    return Truth(rng.random(3_000) + effect * treatment, treatment), Predictions(effect)


GIVEN: dict[Task, tuple[Truth, Predictions]] = {
    "classification": binary(),
    "regression": measured(),
    "causal": treated(),
}


@pytest.mark.parametrize("task", GIVEN)
def test_estimates_are_the_metrics_own_values_within_their_intervals(task: Task) -> None:
    truth, said = GIVEN[task]
    evaluation = Evaluator(task, seed=1).evaluate(truth, said)
    assert list(evaluation.metrics) == metric_names(task)
    for name, estimate in evaluation.metrics.items():
        metric = find_metric(name, task)
        assert metric is not None
        assert estimate.value == pytest.approx(metric.compute(truth, said), rel=1e-9)
        assert estimate.low < estimate.value < estimate.high, name


@pytest.mark.parametrize("task", GIVEN)
def test_the_same_seed_gives_the_same_evaluation(task: Task) -> None:
    first, second, other = (
        Evaluator(task, seed=seed).evaluate(*GIVEN[task]).metrics for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_intervals_have_the_width_that_theory_gives() -> None:
    truth, said = binary(4_000)
    accuracy = Evaluator("classification", seed=3, resamples=1_000).evaluate(truth, said)
    estimate = accuracy.metrics["accuracy"]
    expected = 2 * 1.96 * np.sqrt(estimate.value * (1 - estimate.value) / 4_000)
    assert estimate.high - estimate.low == pytest.approx(expected, rel=0.1)


def test_intervals_keep_their_width_when_many_rows_mean_fewer_resamples() -> None:
    truth, said = binary(100_000)
    estimate = Evaluator("classification", seed=3).evaluate(truth, said).metrics["accuracy"]
    expected = 2 * 1.96 * np.sqrt(estimate.value * (1 - estimate.value) / 100_000)
    assert estimate.high - estimate.low == pytest.approx(expected, rel=0.35)


def test_metrics_of_probabilities_are_left_out_where_there_are_none() -> None:
    truth, said = binary()
    evaluation = Evaluator("classification", seed=1).evaluate(truth, Predictions(said.values))
    assert set(evaluation.metrics) == {
        "accuracy",
        "balanced_accuracy",
        "f1",
        "precision",
        "recall",
        "matthews",
    }
    assert isinstance(evaluation.curves, ClassificationCurves)
    assert evaluation.curves.roc == ()


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_alone_leaves_undefined_metrics_out(only: int) -> None:
    truth, said = binary(100)
    alone = Truth(np.full(100, only), classes=truth.classes)
    evaluation = Evaluator("classification", seed=1).evaluate(alone, said)
    assert "roc_auc" not in evaluation.metrics
    assert "matthews" not in evaluation.metrics
    assert ("recall" in evaluation.metrics) is (only == 1)
    assert {"accuracy", "log_loss", "brier"} <= set(evaluation.metrics)
    every = [v for e in evaluation.metrics.values() for v in (e.value, e.low, e.high)]
    assert np.isfinite(every).all()
    assert isinstance(evaluation.curves, ClassificationCurves)
    assert evaluation.curves.roc == ()


def test_a_rare_class_that_some_resamples_miss_still_gets_an_interval() -> None:
    _, said = binary(50)
    target = np.zeros(50, dtype=int)
    target[7] = 1
    estimate = Evaluator("classification", seed=1).evaluate(Truth(target), said).metrics["roc_auc"]
    assert np.isfinite([estimate.low, estimate.high]).all()


@pytest.mark.parametrize("task", GIVEN)
def test_one_row_is_evaluated_without_a_warning(task: Task) -> None:
    truth, said = GIVEN[task]
    treatment = None if truth.treatment is None else truth.treatment[:1]
    probabilities = None if said.probabilities is None else said.probabilities[:1]
    evaluation = Evaluator(task, seed=1).evaluate(
        Truth(truth.target[:1], treatment, truth.classes),
        Predictions(said.values[:1], probabilities, said.classes),
    )
    assert np.isfinite(list(evaluation.values().values())).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_not_finite_are_counted(bad: float) -> None:
    truth, said = measured(10)
    values = said.values.copy()
    values[[2, 5]] = bad
    with pytest.raises(DataError, match="2 of 10 predictions are not finite"):
        Evaluator("regression", seed=1).evaluate(truth, Predictions(values))


def test_probabilities_that_are_not_finite_are_counted_by_row() -> None:
    truth, said = binary(10)
    assert said.probabilities is not None
    probabilities = said.probabilities.copy()
    probabilities[4] = np.nan
    with pytest.raises(DataError, match="1 of 10 predicted probabilities"):
        Evaluator("classification", seed=1).evaluate(truth, Predictions(said.values, probabilities))


def test_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        Evaluator("regression", seed=1).evaluate(Truth(np.empty(0)), Predictions(np.empty(0)))


def test_predictions_of_another_length_are_a_bug() -> None:
    with pytest.raises(ValueError, match="2 predictions for 3 rows"):
        Evaluator("regression", seed=1).evaluate(Truth(np.ones(3)), Predictions(np.ones(2)))


def test_confusion_rows_are_true_classes() -> None:
    truth = Truth(np.array([0, 0, 0, 1]), classes=("no", "yes"))
    curves = Evaluator("classification", seed=1).evaluate(
        truth, Predictions(np.array([0, 1, 1, 1]))
    )
    assert isinstance(curves.curves, ClassificationCurves)
    assert curves.curves.confusion.tolist() == [[1, 2], [0, 1]]
    assert curves.curves.classes == ("no", "yes")


def test_binary_curves_are_thin_and_keep_their_ends_and_area() -> None:
    evaluation = Evaluator("classification", seed=1).evaluate(*binary())
    curves = evaluation.curves
    assert isinstance(curves, ClassificationCurves)
    (roc,), (recall,), (calibration,) = curves.roc, curves.precision_recall, curves.calibration
    assert roc.name == "yes"
    assert len(roc.x) <= 200
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(
        evaluation.metrics["roc_auc"].value, abs=0.005
    )
    assert len(recall.x) <= 200
    assert recall.x[-1] == 1
    assert len(calibration.x) == 10
    assert (np.diff(calibration.x) > 0).all()


def test_multiclass_curves_are_one_per_class() -> None:
    curves = Evaluator("classification", seed=1).evaluate(*multiclass()).curves
    assert isinstance(curves, ClassificationCurves)
    assert [curve.name for curve in curves.roc] == list("abcd")
    assert curves.confusion.sum() == 500


def test_regression_curves_are_a_sample_of_the_rows() -> None:
    truth, said = measured()
    curves = Evaluator("regression", seed=1).evaluate(truth, said).curves
    assert isinstance(curves, RegressionCurves)
    assert len(curves.actual) == 2_000
    pairs = set(zip(truth.target.tolist(), said.values.tolist(), strict=True))
    assert set(zip(curves.actual.tolist(), curves.predicted.tolist(), strict=True)) <= pairs


def test_causal_curves_meet_the_random_line_and_order_tenths_by_predicted_uplift() -> None:
    truth, said = treated()
    curves = Evaluator("causal", seed=1).evaluate(truth, said).curves
    assert isinstance(curves, CausalCurves)
    effect = truth.target[truth.treatment == 1].mean() - truth.target[truth.treatment == 0].mean()
    assert curves.qini.y[-1] == pytest.approx(effect)
    assert curves.random.y[-1] == pytest.approx(effect)
    assert len(curves.qini.x) <= 200
    assert [tenth.rows for tenth in curves.deciles] == [300] * 10
    assert curves.deciles[0].predicted > 0.9
    assert curves.deciles[0].low < curves.deciles[0].observed < curves.deciles[0].high
    assert curves.deciles[0].observed > curves.deciles[-1].observed


def test_ten_thousand_binary_rows_take_a_quarter_of_a_second() -> None:
    given = binary(10_000)

    def seconds() -> float:
        start = time.process_time()
        Evaluator("classification", seed=1).evaluate(*given)
        return time.process_time() - start

    # Who shares a core's caches with others takes longer, at times.
    assert any(seconds() < 0.25 for _ in range(20))


def test_importing_the_evaluator_loads_no_heavy_library() -> None:
    code = (
        "import sys, lodestar.core.evaluator; "
        "print([m for m in ('sklearn', 'scipy', 'pandas') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
