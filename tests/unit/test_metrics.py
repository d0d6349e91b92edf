from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk

from lodestar.core.metrics import find_metric, metric_names, metrics_for
from lodestar.core.results import Predictions, Task, Truth

Floats = NDArray[np.float64]
TASKS: tuple[Task, ...] = ("classification", "regression", "causal")


def classified(classes: int, rows: int = 400) -> tuple[Truth, Predictions]:
    rng = np.random.default_rng(classes)
    target = rng.integers(0, classes, rows)
    scores = np.round(rng.random((rows, classes)) + np.eye(classes)[target] * 0.4 + 0.01, 1)
    probabilities = scores / scores.sum(axis=1, keepdims=True)
    names = tuple(range(classes))
    return Truth(target, classes=names), Predictions(
        probabilities.argmax(axis=1), probabilities, names
    )


def measured(rows: int = 301) -> tuple[Truth, Predictions]:
    rng = np.random.default_rng(1)
    target = rng.normal(10, 2, rows)
    return Truth(target), Predictions(target + rng.normal(0, 1, rows))


def treated(rows: int = 400, share: float = 0.3) -> tuple[Truth, Predictions]:
    rng = np.random.default_rng(2)
    treatment = (rng.random(rows) < share).astype(np.int64)
    effect = rng.random(rows)
    outcome = (rng.random(rows) < 0.2 + 0.5 * effect * treatment).astype(float)
    return Truth(outcome, treatment), Predictions(np.round(effect + rng.normal(0, 0.3, rows), 1))


def value(
    name: str, task: Task, given: tuple[Truth, Predictions], w: Floats | None = None
) -> float:
    metric = find_metric(name, task)
    assert metric is not None
    return metric.compute(*given, w)


def reference(truth: Truth, predictions: Predictions) -> dict[str, float]:
    y, values, p = truth.target, predictions.values, predictions.probabilities
    if p is None:
        return {
            "rmse": sk.root_mean_squared_error(y, values),
            "mae": sk.mean_absolute_error(y, values),
            "median_absolute_error": sk.median_absolute_error(y, values),
            "mape": sk.mean_absolute_percentage_error(y, values),
            "r2": sk.r2_score(y, values),
        }
    binary = p.shape[1] == 2
    average = "binary" if binary else "macro"
    scores = p[:, 1] if binary else p
    return {
        "accuracy": sk.accuracy_score(y, values),
        "balanced_accuracy": sk.balanced_accuracy_score(y, values),
        "f1": sk.f1_score(y, values, average=average),
        "precision": sk.precision_score(y, values, average=average),
        "recall": sk.recall_score(y, values, average=average),
        "matthews": sk.matthews_corrcoef(y, values),
        "roc_auc": sk.roc_auc_score(y, scores, multi_class="ovr"),
        "average_precision": sk.average_precision_score(y, scores),
        "log_loss": sk.log_loss(y, p),
        "brier": sk.brier_score_loss(y, scores),
    }


def repeated(given: tuple[Truth, Predictions], counts: Floats) -> tuple[Truth, Predictions]:
    truth, said = given
    at = np.repeat(np.arange(len(truth)), counts.astype(int))
    treatment = None if truth.treatment is None else truth.treatment[at]
    probabilities = None if said.probabilities is None else said.probabilities[at]
    return (
        Truth(truth.target[at], treatment, truth.classes),
        Predictions(said.values[at], probabilities, said.classes),
    )


STANDARD = [
    pytest.param("classification", classified(2), id="binary"),
    pytest.param("classification", classified(5), id="multiclass"),
    pytest.param("regression", measured(), id="odd"),
    pytest.param("regression", measured(300), id="even"),
]


@pytest.mark.parametrize(("task", "given"), STANDARD)
def test_standard_metrics_are_scikit_learns(task: Task, given: tuple[Truth, Predictions]) -> None:
    expected = reference(*given)
    assert {name: value(name, task, given) for name in expected} == pytest.approx(
        expected, rel=1e-9
    )
    assert sorted(expected) == sorted(metric_names(task))


@pytest.mark.parametrize(
    ("task", "given"),
    [*STANDARD, pytest.param("causal", treated(), id="causal")],
)
def test_a_weight_counts_as_that_many_equal_rows(
    task: Task, given: tuple[Truth, Predictions]
) -> None:
    counts = (
        np.random.default_rng(3)
        .multinomial(len(given[0]), np.full(len(given[0]), 1 / len(given[0])))
        .astype(float)
    )
    for name in metric_names(task):
        weighted = value(name, task, given, counts)
        assert weighted == pytest.approx(value(name, task, repeated(given, counts)), rel=1e-9), name


def groups_of_equal_uplift(
    given: tuple[Truth, Predictions],
) -> list[tuple[float, float, float, float, float]]:
    """Share, treated rows and outcomes, control rows and outcomes, down the ranking; by hand."""
    truth, said = given
    assert truth.treatment is not None
    points = []
    for least in sorted(set(said.values.tolist()), reverse=True):
        chosen = said.values >= least
        hit, held = chosen & (truth.treatment == 1), chosen & (truth.treatment == 0)
        sums = truth.target[hit].sum(), truth.target[held].sum()
        points.append((float(chosen.mean()), hit.sum(), sums[0], held.sum(), sums[1]))
    return points


def area(points: list[tuple[float, float]]) -> float:
    line = [(0.0, 0.0), *points]
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(line))


def test_qini_is_the_area_between_radcliffes_curve_and_the_random_line() -> None:
    given = treated()
    points = groups_of_equal_uplift(given)
    everyone = points[-1][1]
    curve = [(s, (yt - (yc * nt / nc if nc else 0)) / everyone) for s, nt, yt, nc, yc in points]
    assert value("qini", "causal", given) == pytest.approx(area(curve) - curve[-1][1] / 2)


def test_auuc_is_the_area_under_gutierrez_and_gerardys_curve() -> None:
    given = treated()
    curve = [
        (s, ((yt / nt if nt else 0) - (yc / nc if nc else 0)) * s)
        for s, nt, yt, nc, yc in groups_of_equal_uplift(given)
    ]
    assert value("auuc", "causal", given) == pytest.approx(area(curve))


def test_causal_roc_auc_is_that_of_the_transformed_outcome_with_groups_weighted_alike() -> None:
    truth, said = treated()
    assert truth.treatment is not None
    transformed = (truth.target > 0) == (truth.treatment == 1)
    share = truth.treatment.mean()
    weights = np.where(truth.treatment == 1, 1 / share, 1 / (1 - share))
    expected = sk.roc_auc_score(transformed, said.values, sample_weight=weights)
    assert value("roc_auc", "causal", (truth, said)) == pytest.approx(expected)


def test_outcomes_coded_one_and_two_transform_as_zero_and_one_do() -> None:
    truth, said = treated()
    shifted = Truth(truth.target + 1, truth.treatment)
    assert value("roc_auc", "causal", (shifted, said)) == value("roc_auc", "causal", (truth, said))


def test_one_uplift_for_all_is_no_better_than_chance() -> None:
    truth, _ = treated()
    flat = truth, Predictions(np.full(len(truth), 0.1))
    effect = truth.target[truth.treatment == 1].mean() - truth.target[truth.treatment == 0].mean()
    assert value("qini", "causal", flat) == pytest.approx(0.0, abs=1e-12)
    assert value("roc_auc", "causal", flat) == pytest.approx(0.5)
    assert value("auuc", "causal", flat) == pytest.approx(effect / 2)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["qini", "auuc"])
def test_uplift_metrics_hardly_depend_on_the_share_of_treated_rows(share: float, name: str) -> None:
    rng = np.random.default_rng(5)
    treatment = (rng.random(60_000) < share).astype(np.int64)
    effect = rng.random(60_000)
    outcome = rng.normal(3, 1, 60_000) + effect * treatment
    expected = {"qini": 1 / 12, "auuc": 1 / 3}[name]  # of the curve p - p * p / 2
    found = value(name, "causal", (Truth(outcome, treatment), Predictions(effect)))
    assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("name", ["auuc", "qini", "roc_auc"])
def test_causal_metrics_are_undefined_without_control_rows(name: str) -> None:
    truth, said = treated()
    alone = Truth(truth.target, np.ones(len(truth), dtype=np.int64))
    assert np.isnan(value(name, "causal", (alone, said)))


def test_mape_is_undefined_where_a_target_is_zero() -> None:
    assert np.isnan(value("mape", "regression", (Truth(np.r_[0.0, 1]), Predictions(np.ones(2)))))


def test_r2_is_undefined_where_the_target_is_constant() -> None:
    given = Truth(np.full(9, 0.1)), Predictions(np.arange(9.0))
    assert np.isnan(value("r2", "regression", given))


def test_classes_that_do_not_occur_are_left_out_of_means() -> None:
    truth, said = classified(2)
    probabilities = np.c_[said.probabilities, np.zeros(len(said))]
    wider = Truth(truth.target, classes=(0, 1, 2)), Predictions(said.values, probabilities)
    areas = [sk.roc_auc_score(truth.target == c, probabilities[:, c]) for c in (0, 1)]
    assert value("roc_auc", "classification", wider) == pytest.approx(np.mean(areas))
    assert value("f1", "classification", wider) == pytest.approx(
        sk.f1_score(truth.target, said.values, average="macro")
    )


def test_a_class_that_is_never_predicted_has_precision_and_f1_of_zero() -> None:
    given = Truth(np.array([0, 1, 1])), Predictions(np.zeros(3, dtype=int))
    assert [value(n, "classification", given) for n in ("precision", "f1", "matthews")] == [0, 0, 0]


def test_single_precision_probabilities_of_zero_keep_log_loss_finite() -> None:
    probabilities = np.array([[1, 0], [0, 1]], dtype=np.float32)
    given = Truth(np.array([1, 1])), Predictions(np.array([0, 1]), probabilities)
    expected = sk.log_loss(given[0].target, probabilities, labels=[0, 1])
    assert value("log_loss", "classification", given) == pytest.approx(expected, rel=1e-6)


def test_a_metric_of_probabilities_says_that_there_are_none() -> None:
    with pytest.raises(ValueError, match="needs probabilities"):
        value("roc_auc", "classification", (Truth(np.array([0, 1])), Predictions(np.array([0, 1]))))


def test_every_metric_is_found_by_its_name_and_no_name_stands_twice() -> None:
    for task in TASKS:
        names = metric_names(task)
        assert len(set(names)) == len(names)
        assert [find_metric(n, task) for n in names] == list(metrics_for(task))


def test_a_metric_of_another_task_is_not_found() -> None:
    assert find_metric("rmse", "classification") is None
    assert find_metric("roc_auc", "regression") is None


def test_one_name_may_stand_for_one_formula_per_task() -> None:
    assert find_metric("roc_auc", "causal") is not find_metric("roc_auc", "classification")
