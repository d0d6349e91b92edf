"""Each library's estimators: built, fitted, asked, saved and read back bit for bit."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lodestar.core.models import Family, family_of, import_class
from lodestar.core.results import Task, Truth
from lodestar.errors import ArtifactError, DataError, SettingsError
from lodestar.interface.learning import FeatureMatrix

ANYTHING = ["*"]
METHODS = ("fit", "predict")


def imported(class_path: str, *allowed: str) -> type:
    return import_class(
        class_path, allowed or ANYTHING, where="recipes/x.yaml:2:model.class_path", methods=METHODS
    )


def family(class_path: str, task: Task = "classification") -> Family:
    return family_of(imported(class_path), task)


def matrix(rows: int = 300, kind: Any = np.float64) -> FeatureMatrix:  # noqa: ANN401 -- a dtype
    rng = np.random.default_rng(3)
    return FeatureMatrix(rng.normal(size=(rows, 4)).astype(kind), ("a", "b [kg]", "c<1", "d"))


def truth(task: Task, features: FeatureMatrix, classes: int = 2) -> Truth:
    score = features.array()[:, 0] + 0.1 * features.array()[:, 1]
    if task == "regression":
        return Truth(score.astype(np.float64))
    if task == "causal":
        treatment = np.arange(len(score)) % 2
        return Truth(((score + treatment) > 0.5).astype(float), treatment)
    cuts = np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1])
    return Truth(np.searchsorted(cuts, score), classes=tuple("xyz"[:classes]))


CASES: list[Any] = [
    ("xgboost.XGBClassifier", "classification", 2, {"n_estimators": 5}),
    ("xgboost.XGBClassifier", "classification", 3, {"n_estimators": 5}),
    ("xgboost.XGBRegressor", "regression", 0, {"n_estimators": 5}),
    ("lightgbm.LGBMClassifier", "classification", 2, {"n_estimators": 5}),
    ("lightgbm.LGBMClassifier", "classification", 3, {"n_estimators": 5}),
    ("lightgbm.LGBMRegressor", "regression", 0, {"n_estimators": 5, "feature_fraction": 0.5}),
    ("catboost.CatBoostClassifier", "classification", 2, {"n_estimators": 5}),
    ("catboost.CatBoostClassifier", "classification", 3, {"iterations": 5}),
    ("catboost.CatBoostRegressor", "regression", 0, {"n_estimators": 5}),
    ("sklearn.ensemble.RandomForestClassifier", "classification", 3, {"n_estimators": 5}),
    ("sklearn.linear_model.LogisticRegression", "classification", 2, {}),
    ("sklearn.svm.SVC", "classification", 3, {}),
    ("sklearn.ensemble.HistGradientBoostingRegressor", "regression", 0, {"max_iter": 5}),
    pytest.param(
        "causalml.inference.meta.XGBTRegressor",
        "causal",
        0,
        {"n_estimators": 5, "max_depth": 2, "learning_rate": 0.1, "subsample": 0.8},
        marks=[
            pytest.mark.slow,
            pytest.mark.filterwarnings("ignore::DeprecationWarning"),
            pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
            pytest.mark.filterwarnings("ignore::FutureWarning"),
            pytest.mark.filterwarnings("ignore::UserWarning"),
        ],
    ),
]


@pytest.mark.parametrize(("class_path", "task", "classes", "given"), CASES)
def test_a_saved_estimator_predicts_the_same_bits(
    class_path: str, task: Task, classes: int, given: dict[str, Any], tmp_path: Path
) -> None:
    handled = family(class_path, task)
    features = matrix(kind=handled.dtype)
    known = truth(task, features, classes)
    estimator = handled.build(given, seed=1)
    handled.fit(estimator, features, known)
    before = handled.predict(estimator, features, known.classes)
    back = handled.load(tmp_path / handled.save(estimator, tmp_path))
    after = handled.predict(back, features, known.classes)
    assert len(before) == len(features)
    assert before.values.tobytes() == after.values.tobytes()
    if task == "classification":
        assert (before.values == known.target).mean() > 0.8
        assert set(before.values.tolist()) == set(range(classes))
    if before.probabilities is not None and after.probabilities is not None:
        assert before.probabilities.tobytes() == after.probabilities.tobytes()
        assert before.probabilities.shape == (len(features), classes)
        np.testing.assert_allclose(before.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (before.probabilities is None) == (task != "classification" or "SVC" in class_path)


@pytest.mark.parametrize("class_path", ["xgboost.XGBClassifier", "lightgbm.LGBMClassifier"])
@pytest.mark.parametrize("classes", [2, 3])
def test_predictions_are_the_librarys_own(class_path: str, classes: int) -> None:
    handled = family(class_path)
    features = matrix(kind=handled.dtype)
    known = truth("classification", features, classes)
    estimator = handled.build({"n_estimators": 5}, seed=1)
    handled.fit(estimator, features, known)
    ours = handled.predict(estimator, features, known.classes)
    assert ours.probabilities is not None
    np.testing.assert_array_equal(ours.values, estimator.predict(features.data))
    np.testing.assert_array_equal(ours.probabilities, estimator.predict_proba(features.data))


@pytest.mark.parametrize(
    "class_path", ["xgboost.XGBRegressor", "lightgbm.LGBMRegressor", "catboost.CatBoostRegressor"]
)
def test_contributions_add_up_to_the_prediction_but_for_a_constant(class_path: str) -> None:
    handled = family(class_path, "regression")
    features = matrix(kind=handled.dtype)
    estimator = handled.build({"n_estimators": 5}, seed=1)
    handled.fit(estimator, features, truth("regression", features))
    found = handled.contributions(estimator, features)
    assert found is not None
    assert found.shape == (len(features), 4)
    assert (found >= 0).all()
    assert found.mean(axis=0).argmax() == 0


@pytest.mark.parametrize(
    "class_path", ["xgboost.XGBRegressor", "sklearn.linear_model.SGDRegressor"]
)
def test_the_seed_is_taken_unless_the_recipe_has_its_own(class_path: str) -> None:
    handled = family(class_path, "regression")
    assert handled.build({}, seed=7).random_state == 7
    assert handled.build({"random_state": 3}, seed=7).random_state == 3


def test_catboost_leaves_no_folder_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    handled, features = family("catboost.CatBoostRegressor", "regression"), matrix()
    estimator = handled.build({"n_estimators": 3}, seed=0)
    handled.fit(estimator, features, truth("regression", features))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""


def test_a_class_absent_from_the_rows_keeps_its_place_in_the_probabilities() -> None:
    handled, features = family("sklearn.linear_model.LogisticRegression"), matrix()
    known = Truth(np.where(features.array()[:, 0] > 0, 2, 0), classes=("x", "y", "z"))
    estimator = handled.build({}, seed=0)
    handled.fit(estimator, features, known)
    made = handled.predict(estimator, features, known.classes)
    assert made.probabilities is not None
    assert set(made.values.tolist()) == {0, 2}
    assert (made.probabilities[:, 1] == 0).all()


@pytest.mark.parametrize("class_path", ["xgboost.XGBClassifier", "lightgbm.LGBMClassifier"])
def test_a_library_that_numbers_classes_itself_refuses_rows_without_one(class_path: str) -> None:
    handled, features = family(class_path), matrix()
    known = Truth(np.where(features.array()[:, 0] > 0, 2, 0), classes=("x", "y", "z"))
    with pytest.raises(DataError, match="no row of class 'y'"):
        handled.fit(handled.build({"n_estimators": 2}, seed=0), features, known)


@pytest.mark.parametrize(
    ("class_path", "task", "names"),
    [
        (
            "xgboost.XGBClassifier",
            "classification",
            "n_estimators max_depth eta tweedie_variance_power",
        ),
        ("xgboost.XGBRFRegressor", "regression", "n_estimators colsample_bynode reg_lambda"),
        ("lightgbm.LGBMRegressor", "regression", "feature_fraction num_leaves bagging_fraction"),
        (
            "catboost.CatBoostClassifier",
            "classification",
            "iterations n_estimators depth l2_leaf_reg",
        ),
        ("sklearn.ensemble.RandomForestClassifier", "classification", "n_estimators max_features"),
        ("sklearn.svm.SVC", "classification", "C kernel"),
        pytest.param(
            "causalml.inference.meta.XGBTRegressor",
            "causal",
            "learning_rate n_estimators max_depth subsample control_name",
            marks=[
                pytest.mark.slow,
                pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
                pytest.mark.filterwarnings("ignore::DeprecationWarning"),
            ],
        ),
    ],
)
def test_hyperparameters_are_known_by_name(class_path: str, task: Task, names: str) -> None:
    accepted = family(class_path, task).parameters()
    assert accepted is not None
    assert set(names.split()) <= accepted
    assert not {"max_dept", "n_estimator", "kwargs", "self", "args"} & accepted


class TakesAnything:
    def __init__(self, **options: Any) -> None:  # noqa: ANN401 -- that is the point
        self.options = options


class TakesTwo(TakesAnything):
    def __init__(self, first: int = 1, *, second: int = 2) -> None:
        super().__init__(first=first, second=second)


def test_a_class_that_takes_any_name_cannot_be_checked() -> None:
    assert Family(TakesAnything, "regression").parameters() is None
    assert Family(TakesTwo, "regression").parameters() == frozenset({"first", "second"})


class Sums:
    """Returns one number for all rows, which no estimator may."""

    def predict(self, frame: Any) -> Any:  # noqa: ANN401 -- wrong on purpose
        return frame.to_numpy().sum()


class Column:
    def predict(self, frame: Any) -> Any:  # noqa: ANN401 -- a frame
        return frame.to_numpy()[:, :1]


def test_predict_must_return_a_value_for_each_row() -> None:
    with pytest.raises(DataError, match=r"returned the shape \(\) for 300 rows"):
        Family(Sums, "regression").predict(Sums(), matrix(), ())
    made = Family(Column, "regression").predict(Column(), matrix(), ())
    assert made.values.shape == (300,)


def test_a_file_that_holds_another_class_is_refused(tmp_path: Path) -> None:
    file = tmp_path / Family(Sums, "regression").save(Sums(), tmp_path)
    with pytest.raises(ArtifactError, match="holds a Sums, not a Column"):
        Family(Column, "regression").load(file)


@pytest.mark.parametrize("prefix", ["*", "sklearn", "sklearn.svm", "sklearn.svm.SVC"])
def test_a_prefix_on_the_list_allows_what_is_below_it(prefix: str) -> None:
    assert imported("sklearn.svm.SVC", prefix).__name__ == "SVC"


@pytest.mark.parametrize("prefix", ["sk", "sklearn.sv", "sklearn.svm.SV", "xgboost", "svm", ""])
def test_a_class_off_the_list_is_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match="may not be imported in this environment") as caught:
        imported("sklearn.svm.SVC", prefix)
    assert "- sklearn" in str(caught.value)
    assert "model.allowed_modules" in str(caught.value)


def test_nothing_off_the_list_is_even_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_module.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nclass A: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingsError):
        imported("evil_module.A", "sklearn")
    assert not (tmp_path / "ran").exists()


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "catboost", None)
    with pytest.raises(SettingsError) as caught:
        imported("catboost.CatBoostClassifier")
    assert "pip install 'lodestar-ml[catboost]'" in str(caught.value)
    assert caught.value.problems[0].where == "recipes/x.yaml:2:model.class_path"


@pytest.mark.parametrize(
    ("class_path", "words"),
    [
        ("no_such_package.Model", "no module 'no_such_package'"),
        ("sklearn.ensembel.RandomForestClassifier", "did you mean 'ensemble'"),
        ("xgboost.XGBClasifier", "did you mean 'XGBClassifier'"),
        ("xgboost.train", "has no class train"),
        ("sklearn.preprocessing.StandardScaler", "has no method predict"),
        ("collections.OrderedDict", "no method fit and no method predict"),
    ],
)
def test_a_class_that_cannot_be_had_is_told_with_the_near_ones(class_path: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        imported(class_path)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_dependency\n", ModuleNotFoundError),
        ("from os import no_such_name\n", ImportError),
        ("1 / 0\n", ZeroDivisionError),
    ],
)
def test_a_module_that_is_broken_inside_shows_its_own_error(
    source: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error):
        imported("broken_module.Model")


def test_a_class_of_the_project_is_used_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "team_models.py").write_text(
        "class Mean:\n"
        "    def __init__(self, shift=0.0): self.shift = shift\n"
        "    def fit(self, frame, target): self.mean = target.mean()\n"
        "    def predict(self, frame): return frame.iloc[:, 0] * 0 + self.mean + self.shift\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    handled = family("team_models.Mean", "regression")
    assert handled.parameters() == frozenset({"shift"})
    features = matrix()
    known = truth("regression", features)
    estimator = handled.build({"shift": 1.0}, seed=0)
    handled.fit(estimator, features, known)
    back = handled.load(tmp_path / handled.save(estimator, tmp_path))
    expected = known.target.mean() + 1
    np.testing.assert_allclose(handled.predict(back, features, ()).values, expected)
    monkeypatch.delitem(sys.modules, "team_models")
