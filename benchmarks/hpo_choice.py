"""Does a search choose well, and does it say what it chose? Twenty searches on breast_cancer.

Sixty configurations of the blueprint's XGBoost space are a pool whose true order is known: each is
fitted on the same random splits of all rows. A search tries forty of them on the rows that it may
see; the rest of the rows judge what it chose. Compared are `lodestar train`, the loop that everyone
writes (a split per trial, the best score wins), and 5-fold cross-validation of all sixty.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure import (
    LODESTAR,
    compile_bytecode,
    print_machine,
    print_table,
    print_verdict,
    run,
    workspace,
)

POOL, TRIALS = 60, 40
OURS, LOOP, FOLDS = "lodestar", "loop", "5-fold cross-validation"
ESTIMATOR = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from xgboost import XGBClassifier


def parameters(configuration):
    random = np.random.default_rng(configuration)
    return {
        "learning_rate": float(np.exp(random.uniform(np.log(0.01), np.log(0.3)))),
        "n_estimators": int(random.integers(50, 400)),
        "max_depth": int(random.integers(3, 11)),
        "subsample": float(random.uniform(0.5, 1.0)),
        "n_jobs": 1,
        "random_state": 1,
    }


class Pooled(ClassifierMixin, BaseEstimator):
    def __init__(self, configuration=0):
        self.configuration = configuration

    def fit(self, X, y):
        self.model_ = XGBClassifier(**parameters(self.configuration)).fit(X, y)
        self.classes_ = self.model_.classes_
        return self

    def predict(self, X):
        return self.model_.predict(X)

    def predict_proba(self, X):
        return self.model_.predict_proba(X)
"""
RECIPE = f"""
model:
  class_path: pool.Pooled
  hyperparameters: {{configuration: {{type: int, low: 0, high: {POOL - 1}}}}}
loader: {{source_uri: data/cancer.parquet}}
data_interface: {{task_type: classification, target_col: y}}
hyperparameter_tuning: {{enabled: true, n_trials: {TRIALS}, metric: roc_auc}}
"""


@dataclass(frozen=True)
class Chosen:
    """What one search chose, said of it, and what it came to on rows it had not seen."""

    configuration: int
    reported: float
    held_out: float


def main() -> None:
    """Prepare, repeat and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="3 repetitions, a rough true order")
    options.add_argument("--repetitions", type=int, default=20)
    options.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        CHILDREN[given.child[0]](*given.child[1:])
        return
    print_machine()
    compile_bytecode()
    repetitions, splits = (3, 10) if given.quick else (given.repetitions, 60)
    with workspace() as folder:
        _prepare(folder)
        truth = np.array(json.loads(_child(folder, "truth", str(splits))))
        found: dict[str, list[Chosen]] = {way: [] for way in (OURS, LOOP, FOLDS)}
        for seed in range(repetitions):
            found[OURS].append(_ours(folder, seed))
            for way, name in ((LOOP, "loop"), (FOLDS, "folds")):
                found[way].append(Chosen(**json.loads(_child(folder, name, str(seed)))))
            print(f"  repetition {seed + 1} of {repetitions}", file=sys.stderr)
    _report(found, truth)


def _report(found: dict[str, list[Chosen]], truth: Any) -> None:  # noqa: ANN401 -- an array
    best = set(np.argsort(-truth)[: POOL // 5].tolist())
    shares: dict[str, float] = {}
    gaps: dict[str, Any] = {}
    rows = []
    for way, chosen in found.items():
        shares[way] = float(np.mean([one.configuration in best for one in chosen]))
        gaps[way] = np.array([one.reported - one.held_out for one in chosen])
        rows.append(
            [
                way,
                f"{shares[way]:.0%}",
                f"{np.mean([truth[one.configuration] for one in chosen]):.5f}",
                f"{np.mean([one.reported for one in chosen]):.4f}",
                f"{np.mean([one.held_out for one in chosen]):.4f}",
                f"{gaps[way].mean():+.4f}",
            ]
        )
    header = ["way", "in the true best fifth", "true AUC", "reported", "held out", "optimism"]
    print_table(f"breast_cancer, {len(found[OURS])} searches of {TRIALS} trials", header, rows)
    print(f"  any of the pool: true AUC {truth.mean():.5f}; the best {truth.max():.5f}")
    print_verdict(
        "in the true best fifth / loop", shares[OURS] / max(shares[LOOP], 0.01), 2.5, least=True
    )
    error = gaps[FOLDS].std(ddof=1) / np.sqrt(len(gaps[FOLDS]))
    print_verdict(
        "|optimism - cross-validation's| in its standard errors",
        abs(gaps[OURS].mean() - gaps[FOLDS].mean()) / error,
        1.0,
        least=False,
    )


def _prepare(folder: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    (folder / "recipes").mkdir(exist_ok=True)
    (folder / "recipes" / "choice.yaml").write_text(RECIPE)
    (folder / "pool.py").write_text(ESTIMATOR)
    (folder / "data").mkdir(exist_ok=True)
    frame = load_breast_cancer(as_frame=True).frame.rename(columns={"target": "y"})
    frame.to_parquet(folder / "data" / "cancer.parquet")


def _child(folder: Path, *words: str) -> str:
    child = [sys.executable, str(Path(__file__).resolve()), "--child", words[0], str(folder)]
    return run([*child, *words[1:]], folder).stdout


def _ours(folder: Path, seed: int) -> Chosen:
    tuning = "config.hyperparameter_tuning"
    words = [
        *("train", "-r", "choice", "--json", "--set", f"split.seed={seed}"),
        *("--set", f"{tuning}.enabled=true", "--set", f"{tuning}.parallelization.n_jobs=2"),
        *("--set", f"{tuning}.sampler=RandomSampler"),
    ]
    trained = json.loads(run([LODESTAR, *words], folder).stdout)
    chosen, score = trained["tuning"]["best_params"], trained["tuning"]["best_score"]
    return Chosen(chosen["configuration"], score, trained["metrics"]["roc_auc"])


def _child_truth(folder: str, splits: str) -> None:
    from joblib import Parallel, delayed

    X, y = _rows(folder)

    def mean(configuration: int) -> float:
        scores = [_split_score(X, y, configuration, 10_000 + at) for at in range(int(splits))]
        return float(np.mean(scores))

    print(json.dumps(Parallel(n_jobs=2)(delayed(mean)(number) for number in range(POOL))))


def _child_loop(folder: str, seed: str) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    (X, y), held_out = _visible(folder, int(seed))

    def objective(trial: optuna.Trial) -> float:
        configuration = trial.suggest_int("configuration", 0, POOL - 1)
        return _split_score(X, y, configuration, trial.number)

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=int(seed))
    )
    study.optimize(objective, n_trials=TRIALS)
    _print_chosen(study.best_params["configuration"], study.best_value, (X, y), held_out)


def _child_folds(folder: str, seed: str) -> None:
    from sklearn.model_selection import StratifiedKFold

    (X, y), held_out = _visible(folder, int(seed))
    folds = list(StratifiedKFold(5, shuffle=True, random_state=int(seed)).split(X, y))
    scores = [
        float(np.mean([_score(X, y, configuration, *fold) for fold in folds]))
        for configuration in range(POOL)
    ]
    chosen = int(np.argmax(scores))
    _print_chosen(chosen, scores[chosen], (X, y), held_out)


def _print_chosen(
    configuration: int, reported: float, visible: tuple[Any, Any], held_out: tuple[Any, Any]
) -> None:
    from sklearn.metrics import roc_auc_score

    model = _model(configuration).fit(*visible)
    final = float(roc_auc_score(held_out[1], model.predict_proba(held_out[0])[:, 1]))
    print(json.dumps({"configuration": configuration, "reported": reported, "held_out": final}))


def _rows(folder: str) -> tuple[Any, Any]:
    import pandas as pd

    frame = pd.read_parquet(Path(folder) / "data" / "cancer.parquet")
    return frame.drop(columns="y").to_numpy(), frame["y"].to_numpy()


def _visible(folder: str, seed: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    from sklearn.model_selection import train_test_split

    X, y = _rows(folder)
    seen, unseen, known, unknown = train_test_split(
        X, y, test_size=0.2, random_state=seed, stratify=y
    )
    return (seen, known), (unseen, unknown)


def _split_score(X: Any, y: Any, configuration: int, seed: int) -> float:  # noqa: ANN401 -- arrays
    from sklearn.model_selection import train_test_split

    fit, judge = train_test_split(np.arange(len(y)), test_size=0.25, random_state=seed, stratify=y)
    return _score(X, y, configuration, fit, judge)


def _score(X: Any, y: Any, configuration: int, fit: Any, judge: Any) -> float:  # noqa: ANN401 -- arrays
    from sklearn.metrics import roc_auc_score

    model = _model(configuration).fit(X[fit], y[fit])
    return float(roc_auc_score(y[judge], model.predict_proba(X[judge])[:, 1]))


def _model(configuration: int) -> Any:  # noqa: ANN401 -- the estimator of the workspace
    sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module("pool").Pooled(configuration)


CHILDREN: dict[str, Callable[..., None]] = {
    "truth": _child_truth,
    "loop": _child_loop,
    "folds": _child_folds,
}

if __name__ == "__main__":
    main()
