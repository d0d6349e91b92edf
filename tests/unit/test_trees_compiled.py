"""Models whose trees are compiled: when they are asked, what they say, and when the library is."""

import importlib
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeRegressor
from tests.forests import random_forest, walked, with_other_leaves
from xgboost import XGBClassifier, XGBRegressor

from lodestar.core.fitted import FittedModel
from lodestar.core.models import family_of
from lodestar.core.preprocessor import SimpleScaler, TransformerPreprocessor
from lodestar.core.results import Predictions, Task, Truth
from lodestar.core.trees.bins import binned
from lodestar.core.trees.compiled import DIFFERENT, LEAST_ROWS, CompiledModel
from lodestar.core.trees.forest import NotPlannedError, Tree, forest_of
from lodestar.core.trees.libraries import matrix_model
from lodestar.core.trees.many_rows import many_rows
from lodestar.errors import ArtifactError, DataError

Model: TypeAlias = tuple[type, Task, dict[str, Any], int]

ROUNDS = {"n_estimators": 12}
SHALLOW = {**ROUNDS, "max_depth": 4}
QUIET = {"xgboost": {"n_jobs": 1}, "lightgbm": {"n_jobs": 1, "verbosity": -1}, "generic": {}}
TEXTS = ("red", "green", "blue", None)
XGB_BINARY: Model = (XGBClassifier, "classification", ROUNDS, 2)
MODELS: list[Model] = [
    XGB_BINARY,
    (XGBClassifier, "classification", SHALLOW, 4),
    (XGBRegressor, "regression", ROUNDS, 0),
    (LGBMClassifier, "classification", SHALLOW, 2),
    (LGBMClassifier, "classification", SHALLOW, 3),
    (LGBMRegressor, "regression", SHALLOW, 0),
    (XGBRegressor, "regression", {**ROUNDS, "max_depth": 14, "min_child_weight": 0}, 0),
    # By leaves, and so deeper than trees are filled up.
    (LGBMRegressor, "regression", {**ROUNDS, "num_leaves": 40}, 0),
]


def rows_of(count: int) -> pa.Table:
    draw = np.random.default_rng(5)
    columns = {f"n{at}": pa.array(draw.normal(size=count)) for at in range(4)}
    texts = draw.choice(np.array(TEXTS, object), size=count)
    return pa.table({**columns, "colour": pa.array(texts.tolist(), pa.string())})


def fitted(
    cls: type, task: Task, hyperparameters: dict[str, Any], classes: int, *, rows: int = 3_000
) -> FittedModel:
    table = rows_of(rows)
    signal = table.column("n0").to_numpy() * table.column("n1").to_numpy()
    target = signal
    if classes:
        target = np.digitize(signal, np.quantile(signal, np.linspace(0, 1, classes + 1)[1:-1]))
    truth = Truth(target, classes=tuple(range(classes)))
    family = family_of(cls, task)
    scaler = SimpleScaler()
    scaler.fit(table, target)
    estimator = family.build({**QUIET[family.name], **hyperparameters}, seed=0)
    family.fit(estimator, scaler.transform(table, dtype=family.dtype), truth)
    return FittedModel(scaler, estimator, family, truth.classes)


def bits(said: Predictions) -> list[tuple[str, bytes]]:
    values = [said.values] if said.probabilities is None else [said.values, said.probabilities]
    return [(one.dtype.str, np.ascontiguousarray(one).tobytes()) for one in values]


@pytest.mark.parametrize("model", MODELS)
def test_the_compiled_trees_say_what_the_library_says(
    model: Model,
) -> None:
    plain = fitted(*model)
    compiled, rows = CompiledModel.of(plain), rows_of(LEAST_ROWS)
    assert bits(compiled.score(rows).predictions) == bits(plain.score(rows).predictions)
    assert compiled.trees.ask is not None, compiled.reason
    for some in (rows.slice(7, 9_001), rows.slice(0, 1)):
        assert bits(compiled.score(some).predictions) == bits(plain.score(some).predictions)
    assert compiled.reason == ""


def test_compiled_trees_may_be_asked_by_several_threads() -> None:
    plain = fitted(*XGB_BINARY)
    compiled, rows = CompiledModel.of(plain), rows_of(LEAST_ROWS)
    before = compiled.side_by_side
    compiled.score(rows)
    assert (plain.side_by_side, before, compiled.side_by_side) == (False, False, True)
    parts = [rows.slice(first, 3_000) for first in range(0, LEAST_ROWS, 3_000)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(compiled.score, 3 * parts))
    said = [bits(plain.score(part).predictions) for part in parts]
    assert [bits(one.predictions) for one in found] == 3 * said


def test_few_rows_are_not_worth_compiling() -> None:
    compiled = CompiledModel.of(fitted(*XGB_BINARY))
    compiled.score(rows_of(LEAST_ROWS - 1))
    assert compiled.trees.ask is None
    assert compiled.reason == ""


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            (DecisionTreeRegressor, "regression", {}, 0),
            r"sklearn\.tree\._classes\.DecisionTreeRegressor has no trees that are known",
        ),
    ],
)
def test_other_models_are_asked_through_their_library(model: Model, words: str) -> None:
    plain = fitted(*model)
    compiled, rows = CompiledModel.of(plain), rows_of(LEAST_ROWS)
    for _ in range(2):
        assert bits(compiled.score(rows).predictions) == bits(plain.score(rows).predictions)
    assert compiled.trees.ask is None
    assert re.fullmatch(words, compiled.reason)


def test_without_llvmlite_the_library_predicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite.ir", None)
    compiled = CompiledModel.of(fitted(*XGB_BINARY))
    assert len(compiled.score(rows_of(LEAST_ROWS)).predictions) == LEAST_ROWS
    assert compiled.reason == "llvmlite is not installed"
    assert compiled.doubt == ""


def test_where_llvm_fails_the_library_predicts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(text: str) -> None:
        raise RuntimeError(f"no room for {len(text) > 0}\nmore")

    monkeypatch.setattr("llvmlite.binding.parse_assembly", refuses)
    compiled = CompiledModel.of(fitted(*XGB_BINARY))
    assert len(compiled.score(rows_of(LEAST_ROWS)).predictions) == LEAST_ROWS
    assert compiled.reason == "LLVM compiles nothing here: no room for True"


def test_trees_that_say_something_else_are_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("lodestar.core.trees.compiled")
    monkeypatch.setattr(module, "native_model", with_other_leaves)
    plain = fitted(*XGB_BINARY)
    compiled, rows = CompiledModel.of(plain), rows_of(LEAST_ROWS)
    for _ in range(2):
        assert bits(compiled.score(rows).predictions) == bits(plain.score(rows).predictions)
    assert compiled.doubt == compiled.reason == DIFFERENT


def test_trees_that_disagree_later_end_the_batch() -> None:
    compiled, rows = CompiledModel.of(fitted(*XGB_BINARY)), rows_of(LEAST_ROWS)
    compiled.score(rows)
    other = fitted(XGBClassifier, "classification", SHALLOW, 2)
    compiled.trees.library = matrix_model(other, ())
    with pytest.raises(ArtifactError, match="XGBClassifier predict different values") as caught:
        compiled.score(rows)
    assert "batch.native" in (caught.value.hint or "")


def with_value(rows: pa.Table, name: str, at: int, value: float) -> pa.Table:
    numbers = rows.column(name).to_numpy().copy()
    numbers[at] = value
    return rows.set_column(rows.schema.get_field_index(name), name, pa.array(numbers))


def test_values_that_are_not_finite_are_the_librarys() -> None:
    plain = fitted(*XGB_BINARY)
    compiled, rows = CompiledModel.of(plain), rows_of(LEAST_ROWS)
    compiled.score(rows)
    odd = with_value(rows, "n1", 5, np.inf)
    assert compiled.trees.ask is not None
    assert compiled.trees.ask(odd) is None
    assert bits(compiled.score(odd).predictions) == bits(plain.score(odd).predictions)


def test_a_value_that_is_too_large_is_refused_as_ever() -> None:
    compiled, rows = CompiledModel.of(fitted(*XGB_BINARY)), rows_of(LEAST_ROWS)
    compiled.score(rows)
    with pytest.raises(DataError, match="'n2' has a value that is too large"):
        compiled.score(with_value(rows, "n2", LEAST_ROWS - 1, 1e300))


def test_features_and_unknown_categories_are_those_of_the_preprocessor() -> None:
    plain = fitted(*XGB_BINARY)
    compiled, rows = CompiledModel.of(plain), rows_of(LEAST_ROWS)
    compiled.score(rows)
    colours = pa.array(["red", "violet", None, "violet"])
    some = rows.slice(0, 4).set_column(4, "colour", colours)
    own, library = compiled.score(some), plain.score(some)
    assert own.unknown == library.unknown == {"colour": 2}
    assert own.features.names == library.features.names
    assert own.features.array().tobytes() == library.features.array().tobytes()


def test_the_features_of_other_preprocessors_go_through_compiled_trees() -> None:
    rows = rows_of(LEAST_ROWS)
    halved = FunctionTransformer(lambda frame: frame[["n0", "n1"]].to_numpy(np.float32) / 2)
    transformer = TransformerPreprocessor(halved)
    features = transformer.transform(rows)
    family = family_of(XGBRegressor, "regression")
    estimator = XGBRegressor(**ROUNDS, n_jobs=1)
    family.fit(estimator, features, Truth(rows.column("n0").to_numpy()))
    plain = FittedModel(transformer, estimator, family, ())
    compiled = CompiledModel.of(plain)
    for given in (rows, rows, with_value(rows, "n1", 9, np.nan)):
        assert bits(compiled.score(given).predictions) == bits(plain.score(given).predictions)
    assert compiled.trees.ask is not None
    assert compiled.trees.ask(rows) is not None


def test_a_column_with_more_thresholds_than_a_byte_has_values() -> None:
    draw = np.random.default_rng(1)
    thresholds = draw.normal(size=2_000)
    forest = random_forest(draw, trees=60, depth=5, width=2, thresholds=thresholds)
    assert binned(forest).cut.dtype == np.uint16
    matrix = draw.choice(thresholds.astype(np.float32), size=(100, 2))
    found = many_rows(forest, threads=2)(matrix)
    assert found is not None
    assert found.tolist() == [walked(forest, row).tolist() for row in matrix]


def test_more_thresholds_than_two_bytes_have_values_are_refused() -> None:
    inner = 2**8 - 1
    places = np.arange(2 * inner + 1)
    children = np.where(places < inner, 2 * places + 1, -1)
    right = np.where(places < inner, 2 * places + 2, -1)
    trees = [
        Tree(np.zeros_like(places), places + float(at * len(places)), children, right, 0)
        for at in range(2**16 // inner + 1)
    ]
    base = np.zeros(1)
    forest = forest_of(trees, base=base, width=1, strict=True, link="identity")
    with pytest.raises(NotPlannedError, match="a feature with 65,790 thresholds"):
        binned(forest)
