"""The probe: the same rows, predicted again wherever the artifact is loaded."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from lodestar.artifact.probe import replay, write_probe
from lodestar.core.fitted import FittedModel
from lodestar.core.models import family_of
from lodestar.core.preprocessor import SimpleScaler
from lodestar.core.results import Task, Truth
from lodestar.errors import ArtifactError

ROWS = pa.table({"a": [1.0, 2.0, 3.0, 4.0, None], "c": ["x", "y", None, "x", "y"]})


def fitted(*, regression: bool = False) -> FittedModel:
    scaler = SimpleScaler()
    scaler.fit(ROWS, np.zeros(5))
    task: Task = "regression" if regression else "classification"
    family = family_of(LinearRegression if regression else LogisticRegression, task)
    classes = () if regression else ("no", "yes")
    truth = Truth(np.array([0, 0, 1, 1, 1]) * (1.5 if regression else 1), classes=classes)
    estimator = family.build({}, seed=0)
    family.fit(estimator, scaler.transform(ROWS, dtype=np.float64), truth)
    return FittedModel(scaler, estimator, family, classes)


@pytest.mark.parametrize("regression", [False, True])
def test_the_same_model_says_the_same(tmp_path: Path, regression: bool) -> None:
    model = fitted(regression=regression)
    write_probe(model, ROWS, tmp_path)
    assert replay(model, tmp_path) == 5


@pytest.mark.parametrize("regression", [False, True])
def test_a_model_that_says_something_else_is_refused(tmp_path: Path, regression: bool) -> None:
    model = fitted(regression=regression)
    write_probe(model, ROWS, tmp_path)
    model.estimator.intercept_ = model.estimator.intercept_ + 0.001
    with pytest.raises(ArtifactError, match="the probe failed") as caught:
        replay(model, tmp_path)
    assert caught.value.exit_code == 6
    assert "requirements.txt" in str(caught.value)


def test_other_logic_before_the_model_is_refused(tmp_path: Path) -> None:
    model = fitted()
    write_probe(model, ROWS, tmp_path)
    other = SimpleScaler()
    other.fit(ROWS.set_column(0, "a", pa.array([1.0, 2.0, 3.0, 4.0, 5.0])), np.zeros(5))
    with pytest.raises(ArtifactError, match="the probe failed"):
        replay(dataclasses.replace(model, preprocessor=other), tmp_path)


def test_other_names_for_the_classes_are_refused(tmp_path: Path) -> None:
    model = fitted()
    write_probe(model, ROWS, tmp_path)
    with pytest.raises(ArtifactError):
        replay(dataclasses.replace(model, classes=("yes", "no")), tmp_path)


def test_rounding_in_the_last_places_is_fine(tmp_path: Path) -> None:
    model = fitted(regression=True)
    write_probe(model, ROWS, tmp_path)
    model.estimator.coef_ = np.nextafter(model.estimator.coef_, np.inf)
    assert replay(model, tmp_path) == 5
