"""What a tracked, reproducible, reported training costs beside the plain script for the same model.

The plain script reads parquet, splits, fits a scikit-learn pipeline (StandardScaler, XGBClassifier),
computes metrics and logs the model with `mlflow.sklearn.log_model`: once with MLflow's defaults, which
infer the requirements, once with them given. Ours is `lodestar train`: the same model, and the
artifact with manifest, lock and probe, intervals, importance, leakage checks and the HTML report. All
whole processes, on a SQLite store that exists already.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from measure import (
    LODESTAR,
    Cost,
    compile_bytecode,
    interleaved,
    median,
    print_machine,
    print_table,
    print_verdict,
    run,
    workspace,
)

COLUMNS, SEED = 30, 20_250_713
# One thread: on a busy machine two wait for each other in loops, up to 5× the processor time.
TREES = {
    "n_estimators": 300,
    "max_depth": 6,
    "learning_rate": 0.1,
    "n_jobs": 1,
    "random_state": 42,
}
OURS, DEFAULTS, GIVEN = "lodestar train", "plain script, defaults", "plain script, pip_requirements"
TRUSTED = ["xgboost.core.Booster", "xgboost.sklearn.XGBClassifier"]
RECIPE = f"""\
model:
  class_path: xgboost.XGBClassifier
  hyperparameters: {json.dumps(TREES)}
loader:
  source_uri: data/rows.parquet
data_interface:
  task_type: classification
  target_col: y
"""


def main() -> None:
    """Prepare, measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="10,000 rows, one round")
    options.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        CHILDREN[given.child[0]](*given.child[1:])
        return
    rows, rounds = (10_000, 1) if given.quick else (50_000, 5)
    print_machine()
    compile_bytecode()
    with workspace() as folder:
        (folder / "recipes" / "rows.yaml").write_text(RECIPE, encoding="utf-8")
        _child(folder, "make", str(rows))
        _measure(folder, rows, rounds)


def _child(folder: Path, *words: str) -> Cost:
    return run([sys.executable, __file__, "--child", *words], folder)


def _measure(folder: Path, rows: int, rounds: int) -> None:
    costs = interleaved(
        {
            OURS: lambda: run([LODESTAR, "train", "-r", "rows", "--json"], folder),
            GIVEN: lambda: _child(folder, "plain", "given"),
            DEFAULTS: lambda: _child(folder, "plain", "defaults"),
        },
        rounds,
    )
    medians = {name: median(several) for name, several in costs.items()}
    ours = medians[OURS]
    print_table(
        f"{rows:,} rows × {COLUMNS} columns, medians of {rounds} interleaved rounds",
        ("way", "CPU s", "wall s", "peak MB", "ours ÷ this, CPU"),
        [
            (
                name,
                f"{cost.cpu:.2f}",
                f"{cost.wall:.2f}",
                f"{cost.peak:,.0f}",
                f"{ours.cpu / cost.cpu:.2f}",
            )
            for name, cost in medians.items()
        ],
    )
    ratio = ours.cpu / medians[DEFAULTS].cpu
    print_verdict("CPU ÷ plain script with defaults", ratio, 0.7, least=False)
    ratio = ours.cpu / medians[GIVEN].cpu
    print_verdict("CPU ÷ plain script with pip_requirements", ratio, 1.15, least=False)
    _print_stages(folder)


def _print_stages(folder: Path) -> None:
    """Where ours goes: one run in one process, its stages timed."""
    stages: dict[str, float] = json.loads(_child(folder, "stages").stdout)
    total = sum(stages.values())
    print_table(
        "Where ours goes: one more run, timed in its own process",
        ("stage", "CPU s", "share"),
        [(name, f"{cpu:.2f}", f"{cpu / total:.0%}") for name, cpu in stages.items()],
    )


# What follows runs in processes of its own.


def make(rows: str) -> None:
    """Write seeded rows for two classes."""
    import pandas as pd
    from sklearn.datasets import make_classification

    features, target = make_classification(
        int(rows), COLUMNS, n_informative=12, n_redundant=4, flip_y=0.05, random_state=SEED
    )
    frame = pd.DataFrame(features, columns=[f"x{at:02}" for at in range(COLUMNS)])
    frame.assign(y=target).to_parquet("data/rows.parquet", index=False)


def plain(requirements: str) -> None:
    """The script that a data scientist would write."""
    import mlflow
    import pandas as pd
    from sklearn.metrics import accuracy_score, f1_score, log_loss, roc_auc_score
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from xgboost import XGBClassifier

    frame = pd.read_parquet("data/rows.parquet")
    features, target = frame.drop(columns="y"), frame["y"]
    train_x, test_x, train_y, test_y = train_test_split(
        features, target, test_size=0.2, stratify=target, random_state=42
    )
    model = make_pipeline(StandardScaler(), XGBClassifier(**TREES)).fit(train_x, train_y)
    probabilities, predicted = model.predict_proba(test_x), model.predict(test_x)
    metrics = {
        "accuracy": accuracy_score(test_y, predicted),
        "f1": f1_score(test_y, predicted),
        "roc_auc": roc_auc_score(test_y, probabilities[:, 1]),
        "log_loss": log_loss(test_y, probabilities),
    }
    mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
    mlflow.set_experiment("lodestar")
    pins = ["scikit-learn", "xgboost", "pandas"] if requirements == "given" else None
    with mlflow.start_run():
        mlflow.log_params(TREES)
        mlflow.log_metrics(metrics)
        mlflow.sklearn.log_model(
            model,
            name="model",
            pip_requirements=pins,
            input_example=None,
            # Without this list MLflow refuses to log XGBoost inside a pipeline.
            skops_trusted_types=TRUSTED,
        )


def stages() -> None:
    """Train once, with a clock around each stage; prints the seconds as JSON."""
    import time
    from importlib import import_module

    spent: dict[str, float] = {}

    def timed(name: str, module: str, attribute: str) -> None:
        owner = import_module(module)
        if "." in attribute:
            cls, attribute = attribute.split(".")
            owner = getattr(owner, cls)
        inner = getattr(owner, attribute)

        def around(*values: object, **named: object) -> object:
            began, before = time.process_time(), sum(spent.values())
            result = inner(*values, **named)
            within = sum(spent.values()) - before
            spent[name] = spent.get(name, 0.0) + time.process_time() - began - within
            return result

        setattr(owner, attribute, around)

    timed("estimator's fit", "lodestar.core.models.family", "Family.fit")
    timed("metrics, intervals, curves", "lodestar.core.evaluator", "Evaluator.evaluate")
    timed("insight: leakage", "lodestar.pipelines.insight", "inspect")
    timed("insight: profile", "lodestar.pipelines.insight", "profile")
    timed("insight: permutation", "lodestar.pipelines.insight", "permutation_importance")
    timed("insight: SHAP", "lodestar.pipelines.insight", "shap_importance")
    timed("report page", "lodestar.pipelines.recording", "render")
    timed("lock", "lodestar.pipelines.recording", "lock_of")
    timed("fingerprint", "lodestar.pipelines.recording", "fingerprint")
    timed("artifact, probe, manifest", "lodestar.pipelines.recording", "package")
    timed("MLflow run and its imports", "lodestar.artifact.store", "RunStore.save")
    from lodestar.pipelines.train import train
    from lodestar.settings.loading import load_settings

    train(load_settings(Path.cwd(), "rows", environment=None, overrides=(), variables={}), {})
    rest = time.process_time() - sum(spent.values())
    print(json.dumps({**spent, "the rest: start, imports, reading, split, scaling": rest}))


CHILDREN: dict[str, Callable[..., None]] = {"make": make, "plain": plain, "stages": stages}


if __name__ == "__main__":
    main()
