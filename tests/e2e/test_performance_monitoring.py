"""`train` and `evaluate` say whether a model got better or worse, and CI can fail on it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Finished, Lodestar, Trained, copy_of

CONFIG = """\
performance_monitoring:
  enabled: true
  baseline_metrics:
    accuracy: 0.75
    rmse: 1.5
  alert_thresholds:
    improvement_threshold: 0.02
    degradation_threshold: -0.01
"""
GOOD = ("--set", "model.hyperparameters.n_estimators=20")
# It learns next to nothing.
BAD = (
    *("--set", "model.hyperparameters.n_estimators=1"),
    *("--set", "model.hyperparameters.max_depth=1"),
    *("--set", "model.hyperparameters.learning_rate=0.0001"),
)


@pytest.fixture(scope="module")
def studio(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """A project whose champion is a good model; it was compared with the baseline alone."""
    project = lodestar.stocked(
        copy_of(sample_project, tmp_path_factory.mktemp("watched") / "project")
    )
    (project / "config/watched.yaml").write_text(CONFIG, encoding="utf-8")
    wrong = CONFIG.replace("accuracy", "accuraccy")
    (project / "config/wrong.yaml").write_text(wrong, encoding="utf-8")
    made = Trained(project, train(lodestar, project, *GOOD).succeeded().json)
    lodestar("promote", "--run-id", made.run_id, "--alias", "champion", cwd=project).succeeded()
    return made


@pytest.fixture(scope="module")
def worse(lodestar: Lodestar, studio: Trained) -> Finished:
    """A bad model, trained after the good one."""
    return train(lodestar, studio.project, *BAD, "--fail-on-degradation")


def train(lodestar: Lodestar, project: Path, *options: str) -> Finished:
    return lodestar(
        *("train", "-r", "breast_cancer", "--env", "watched", "--json"), *options, cwd=project
    )


def tags(project: Path, run_id: str) -> dict[str, str]:
    with closing(sqlite3.connect(project / "mlruns/mlflow.db")) as database:
        rows: Iterator[tuple[str, str]] = database.execute(
            "SELECT key, value FROM tags WHERE run_uuid = ? AND key LIKE 'lodestar.performance%'",
            (run_id,),
        )
        return {key.removeprefix("lodestar.performance."): value for key, value in rows}


def test_a_first_model_is_compared_with_the_baseline(studio: Trained) -> None:
    (baseline,) = studio.json["performance"]
    assert (baseline["against"], baseline["verdict"]) == ("baseline", "improved")
    metrics = {one["metric"]: one for one in baseline["metrics"]}
    assert metrics["accuracy"]["verdict"] == "improved"
    assert 0 < metrics["accuracy"]["low"] < metrics["accuracy"]["change"]
    assert metrics["rmse"]["verdict"] == "not comparable"
    assert "classification has no rmse" in metrics["rmse"]["why"]
    told = tags(studio.project, studio.run_id)
    assert told["train.baseline"] == told["train.baseline.accuracy"] == "improved"


def test_a_worse_model_is_saved_and_the_exit_code_says_so(studio: Trained, worse: Finished) -> None:
    assert worse.code == 7, worse.stderr
    run = worse.json
    by_rival = {each["against"]: each for each in run["performance"]}
    champion = by_rival["champion"]
    assert champion["run_id"] == studio.run_id
    assert champion["verdict"] == "degraded"
    accuracy = next(one for one in champion["metrics"] if one["metric"] == "accuracy")
    assert accuracy["change"] < accuracy["high"] < 0
    told = tags(studio.project, run["run_id"])
    assert told["train.champion"] == told["train.champion.accuracy"] == "degraded"
    assert told["train.champion.run_id"] == studio.run_id
    report = (studio.project / run["report"]).read_text(encoding="utf-8")
    assert f"Against the champion (run {studio.run_id[:8]})" in report
    assert "degraded" in report


def test_the_terminal_says_it_in_words(
    lodestar: Lodestar, studio: Trained, worse: Finished
) -> None:
    run_id = worse.json["run_id"]
    done = lodestar("evaluate", "--run-id", run_id, "--env", "watched", cwd=studio.project)
    done.succeeded()
    assert f"against the champion {studio.run_id[:8]}: degraded" in done.stderr
    assert "accuracy degraded by" in done.stderr


def test_a_champion_that_fails_on_new_rows_is_found(lodestar: Lodestar, studio: Trained) -> None:
    table = pq.read_table(studio.project / "data/breast_cancer.parquet")
    labels = table.column("diagnosis").to_pylist()
    swapped = pa.array(["benign" if each == "malignant" else "malignant" for each in labels])
    place = table.schema.get_field_index("diagnosis")
    pq.write_table(
        table.set_column(place, "diagnosis", swapped), studio.project / "data/swapped.parquet"
    )
    done = lodestar(
        *("evaluate", "--run-id", "champion", "--data", "data/swapped.parquet", "--json"),
        *("--env", "watched", "--fail-on-degradation"),
        cwd=studio.project,
    )
    assert done.code == 7, done.stderr
    by_rival = {each["against"]: each["verdict"] for each in done.json["performance"]}
    assert by_rival == {"baseline": "degraded", "champion": "degraded"}
    assert tags(studio.project, studio.run_id)["evaluate.champion"] == "degraded"


def test_a_champion_beside_itself_is_unchanged(lodestar: Lodestar, studio: Trained) -> None:
    done = lodestar(
        *("evaluate", "--run-id", "champion", "--env", "watched", "--json"),
        "--fail-on-degradation",
        cwd=studio.project,
    ).succeeded()
    assert done.json["performance"][1]["verdict"] == "unchanged"


def test_a_baseline_of_no_metric_is_refused_before_anything_is_read(
    lodestar: Lodestar, studio: Trained
) -> None:
    for command in (("train", "-r", "breast_cancer"), ("evaluate", "--run-id", studio.run_id)):
        done = lodestar(*command, "--env", "wrong", cwd=studio.project)
        done.refused(2, "baseline_metrics.accuraccy", "did you mean 'accuracy'")
