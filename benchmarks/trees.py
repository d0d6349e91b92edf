"""Boosted trees over many rows: compiled ones against their own library, in one thread each.

The processor time of predicting the same matrix, interleaved. Both say the same bits, which is
compared. What compiling takes comes once per batch.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from measure import compile_bytecode, print_machine, print_table, print_verdict

ROWS, COLUMNS, TRAIN_ROWS, SEED = 65_536, 30, 50_000, 20_250_713
XGBOOST: dict[str, Any] = {"n_estimators": 300, "n_jobs": 1, "random_state": 0}
LIGHTGBM: dict[str, Any] = {**XGBOOST, "verbosity": -1, "num_threads": 1}
MODELS: dict[str, tuple[str, dict[str, Any], int]] = {
    "XGBoost, depth 3": ("XGBClassifier", {**XGBOOST, "max_depth": 3}, 2),
    "XGBoost, depth 6": ("XGBClassifier", {**XGBOOST, "max_depth": 6}, 2),
    "XGBoost, depth 8": ("XGBClassifier", {**XGBOOST, "max_depth": 8}, 2),
    "XGBoost, 4 classes, depth 6": ("XGBClassifier", {**XGBOOST, "n_estimators": 75}, 4),
    "LightGBM, 31 leaves": ("LGBMClassifier", LIGHTGBM, 2),
    "LightGBM, 127 leaves": ("LGBMClassifier", {**LIGHTGBM, "num_leaves": 127}, 2),
}


def main() -> None:
    """Train, measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="8,192 rows, one round")
    given = options.parse_args()
    print_machine()
    compile_bytecode()
    rows, rounds = (8_192, 1) if given.quick else (ROWS, 7)
    found = []
    for name, model in MODELS.items():
        sys.stderr.write(f"{name}\n")
        found.append((name, *_measured(*model, rows=rows, rounds=rounds)))
    print_table(
        f"µs of processor time a row, medians of {rounds}; 300 trees, {COLUMNS} columns",
        ("model", "library", "compiled", "ratio", "compiling, s"),
        [
            (name, f"{library:.2f}", f"{own:.2f}", f"{library / own:.1f}", f"{compiling:.2f}")
            for name, library, own, compiling in found
        ],
    )
    for name, library, own, _ in found:
        print_verdict(f"{name}: library ÷ compiled", library / own, 2, least=True)


def _measured(
    kind: str, hyperparameters: dict[str, Any], classes: int, *, rows: int, rounds: int
) -> tuple[float, float, float]:
    """µs a row by the library and compiled, and seconds to compile."""
    import numpy as np

    from lodestar.core.trees.libraries import matrix_model, native_model, reader
    from lodestar.core.trees.many_rows import many_rows

    fitted = _fitted(kind, hyperparameters, classes)
    matrix = np.random.default_rng(SEED + 1).normal(size=(rows, COLUMNS))
    matrix = matrix.astype(fitted.family.dtype)
    library = matrix_model(fitted, tuple(f"n{at}" for at in range(COLUMNS)))
    began = time.process_time()
    native = native_model(fitted, COLUMNS)
    trees = many_rows(native.forest, threads=1)
    compiling = time.process_time() - began
    read = reader(native.says, fitted.classes)

    def compiled(asked: Any) -> Any:  # noqa: ANN401 -- numpy, imported in here alone
        out = trees(asked)
        return None if out is None else read(out)

    said, own = library(matrix), compiled(matrix)
    if said.probabilities is None or not np.array_equal(said.probabilities, own.probabilities):
        raise SystemExit(f"{kind}: the compiled trees predict something else")
    took: dict[str, list[float]] = {"library": [], "compiled": []}
    for _ in range(rounds):
        took["library"].append(_cpu(lambda: library(matrix)))
        took["compiled"].append(_cpu(lambda: compiled(matrix)))
    each = {name: 1e6 * statistics.median(seconds) / rows for name, seconds in took.items()}
    return each["library"], each["compiled"], compiling


def _cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _fitted(kind: str, hyperparameters: dict[str, Any], classes: int) -> Any:  # noqa: ANN401 -- as above
    import lightgbm
    import numpy as np
    import xgboost

    from lodestar.core.fitted import FittedModel
    from lodestar.core.models import family_of
    from lodestar.core.preprocessor import SimpleScaler

    draw = np.random.default_rng(SEED)
    features = draw.normal(size=(TRAIN_ROWS, COLUMNS))
    signal = features[:, :6].sum(axis=1) + 2 * features[:, 6] * features[:, 7]
    signal += draw.normal(size=TRAIN_ROWS)
    target = np.digitize(signal, np.quantile(signal, np.linspace(0, 1, classes + 1)[1:-1]))
    cls = getattr(xgboost if kind.startswith("XGB") else lightgbm, kind)
    family = family_of(cls, "classification")
    estimator = cls(**hyperparameters).fit(features.astype(family.dtype), target)
    return FittedModel(SimpleScaler(), estimator, family, tuple(range(classes)))


if __name__ == "__main__":
    main()
