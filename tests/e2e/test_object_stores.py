"""A project whose rows, results, snapshots and artifacts are in S3: every command by its URIs."""

import io
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
from tests.conftest import SMALL, Lodestar, Trained, copy_of, edited
from tests.faults.test_secrets import CANARY, disguises, hits, said_by
from tests.object_stores import S3Box

CONFIG = """\
data:
  s3:
    endpoint_url: ${STORE}
    region: us-east-1
    access_key_id: ${STORE_USER}
    secret_access_key: ${STORE_PASSWORD}
output: {root: s3://BOX/results, save: [predictions, preprocessed]}
mlflow: {experiment_name: far, artifact_root: s3://BOX/artifacts}
"""


@dataclass(frozen=True)
class Far:
    """A project, its bucket, and the variables that its commands need."""

    project: Path
    box: S3Box
    variables: dict[str, str]
    trained: Trained = field(repr=False)

    def frame(self, uri: str) -> pd.DataFrame:
        prefix = f"s3://{self.box.name}/"
        assert uri.startswith(prefix)
        content = self.box.get(uri.removeprefix(prefix))
        assert content is not None, uri
        return pd.read_parquet(io.BytesIO(content))


@pytest.fixture(scope="module")
def far(
    lodestar: Lodestar,
    sample_project: Path,
    s3_endpoint: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Far:
    box = S3Box(s3_endpoint)
    box.make()
    project = lodestar.stocked(copy_of(sample_project, tmp_path_factory.mktemp("far") / "project"))
    rows = project / "data" / "breast_cancer.parquet"
    box.put("rows/breast_cancer.parquet", rows.read_bytes())
    rows.unlink()
    edited(
        project / "recipes/breast_cancer.yaml",
        "source_uri: recipes/sql/loaders/breast_cancer.sql",
        f"source_uri: {box.uri('rows/breast_cancer.parquet')}",
    )
    (project / "config/far.yaml").write_text(CONFIG.replace("BOX", box.name), encoding="utf-8")
    variables = {
        "APP_ENV": "far",
        "STORE": s3_endpoint,
        "STORE_USER": "somebody",
        "STORE_PASSWORD": CANARY,
        # By which MLflow reaches its artifact store itself.
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": CANARY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": s3_endpoint,
    }
    done = lodestar(
        "train", "-r", "breast_cancer", *SMALL, "--json", cwd=project, env=variables
    ).succeeded()
    assert not said_by(done, CANARY)
    return Far(project, box, variables, Trained(project, done.json))


def test_training_reads_its_rows_and_leaves_its_artifact_there(far: Far) -> None:
    artifact = far.trained.json["artifact_uri"]
    assert artifact.startswith(f"s3://{far.box.name}/artifacts/")
    key = artifact.removeprefix(f"s3://{far.box.name}/")
    assert f"{key}/manifest.json" in far.box.names()


def test_a_batch_is_scored_with_the_artifact_that_is_there(lodestar: Lodestar, far: Far) -> None:
    done = lodestar(
        "batch-inference",
        *("--run-id", far.trained.run_id, "--json"),
        cwd=far.project,
        env=far.variables,
    ).succeeded()
    folder = f"s3://{far.box.name}/results/breast_cancer/{far.trained.run_id}"
    assert done.json["outputs"] == {
        "predictions": f"{folder}/predictions.parquet",
        "preprocessed": f"{folder}/preprocessed.parquet",
    }
    predictions = far.frame(f"{folder}/predictions.parquet")
    assert len(predictions) == 569
    assert set(predictions["run_id"]) == {far.trained.run_id}
    # A file is one run's, so that its rows need not say which window they are of.
    assert "context_params" not in predictions
    assert len(far.frame(f"{folder}/preprocessed.parquet")) == 569
    assert not said_by(done, CANARY)


def test_output_may_name_any_object(lodestar: Lodestar, far: Far) -> None:
    output = far.box.uri("elsewhere/scores.csv")
    lodestar(
        "batch-inference",
        *("--run-id", far.trained.run_id, "--output", output),
        cwd=far.project,
        env=far.variables,
    ).succeeded()
    assert {"elsewhere/scores.csv", "elsewhere/scores.preprocessed.csv"} <= set(far.box.names())


def test_a_run_is_judged_on_an_object(lodestar: Lodestar, far: Far) -> None:
    data = far.box.uri("rows/breast_cancer.parquet")
    done = lodestar(
        "evaluate",
        *("--run-id", far.trained.run_id, "--data", data, "--json"),
        cwd=far.project,
        env=far.variables,
    ).succeeded()
    assert done.json["data"] == f"held-out rows of {data}"


def test_check_names_what_lies_beside_a_missing_object(lodestar: Lodestar, far: Far) -> None:
    wrong = ("--set", f"loader.source_uri={far.box.uri('rows/breast_cancr.parquet')}")
    done = lodestar("check", "-r", "breast_cancer", *wrong, cwd=far.project, env=far.variables)
    done.refused(3, "there is no object", "did you mean 'rows/breast_cancer.parquet'?")


def test_a_snapshot_in_the_store_stands_in_for_loader_and_features(
    lodestar: Lodestar, far: Far
) -> None:
    content = far.box.get("rows/breast_cancer.parquet")
    assert content is not None
    far.box.put("snapshots/breast_cancer.parquet", content)
    done = lodestar(
        *(
            "check",
            "-r",
            "breast_cancer",
            "--set",
            f"config.data.snapshots={far.box.uri('snapshots')}",
        ),
        cwd=far.project,
        env=far.variables,
    ).succeeded()
    assert f"{far.box.uri('snapshots/breast_cancer.parquet')} stands in" in done.stderr


@pytest.mark.faults
def test_an_artifact_store_that_is_away_is_an_error_of_the_outside(
    lodestar: Lodestar, far: Far
) -> None:
    away = {
        **far.variables,
        "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    done = lodestar("train", "-r", "breast_cancer", *SMALL, cwd=far.project, env=away)
    done.refused(4, "the artifact store refuses or does not answer")
    assert not said_by(done, CANARY)


def test_the_secret_is_nowhere_in_project_or_store(far: Far) -> None:
    assert not hits(far.project, CANARY)
    for key in far.box.names():
        content = far.box.get(key) or b""
        assert not any(word in content for word in disguises(CANARY)), key
