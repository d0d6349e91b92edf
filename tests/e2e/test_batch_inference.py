"""`lodestar batch-inference`: the artifact's own SQL and logic, streamed, every row with its origin."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import SMALL, Lodestar, Trained, copy_of, edited, outbox

from lodestar.artifact.wrapper import load_wrapper
from lodestar.core.trees.compiled import LEAST_ROWS


@pytest.fixture(scope="module")
def studio(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """A project of this file's own, with one trained run; tests may add configs and outputs to it."""
    project = lodestar.stocked(
        copy_of(sample_project, tmp_path_factory.mktemp("studio") / "project")
    )
    (project / "config/frames.yaml").write_text(
        "output: {root: frames, save: [predictions, augmented, preprocessed]}\n", encoding="utf-8"
    )
    for rows in (1, 7, 65_536):
        (project / f"config/chunk{rows}.yaml").write_text(
            f"batch: {{chunk_rows: {rows}}}\n", encoding="utf-8"
        )
    done = lodestar("train", "-r", "breast_cancer", *SMALL, "--json", cwd=project)
    return Trained(project, done.succeeded().json)


def test_every_row_is_scored_once_and_says_where_it_comes_from(
    lodestar: Lodestar, studio: Trained
) -> None:
    done = lodestar("batch-inference", "--run-id", studio.run_id, "--json", cwd=studio.project)
    said = done.succeeded().json
    assert said.keys() >= {"run_id", "rows", "outputs"}
    assert said["outputs"] == {
        "predictions": f"outputs/breast_cancer/{studio.run_id}/predictions.parquet"
    }
    predictions = pq.read_table(studio.project / said["outputs"]["predictions"]).to_pandas()
    rows = pq.read_table(studio.project / "data/breast_cancer.parquet").to_pandas()
    assert said["rows"] == len(predictions) == 569
    assert list(predictions["sample_id"]) == list(rows["sample_id"])
    assert set(predictions["prediction"]) == {"malignant", "benign"}
    assert set(predictions["run_id"]) == {studio.run_id}
    assert set(predictions["artifact_digest"]) == {studio.json["artifact_digest"]}
    # Probabilities, not only classes.
    probabilities = predictions.filter(like="probability")
    assert probabilities.shape[1] >= 1
    assert probabilities.to_numpy().min() >= 0
    assert probabilities.to_numpy().max() <= 1


@pytest.mark.parametrize("chunk_rows", [1, 7, 65_536])
def test_predictions_are_bitwise_those_of_the_wrapper_on_one_frame(
    lodestar: Lodestar, studio: Trained, tmp_path: Path, chunk_rows: int
) -> None:
    output = outbox(studio.project, tmp_path) / "predictions.parquet"
    lodestar(
        *("batch-inference", "--run-id", studio.run_id, "--output", output),
        *("--env", f"chunk{chunk_rows}"),
        cwd=studio.project,
    ).succeeded()
    streamed = pq.read_table(output).to_pandas()
    wrapper, _ = load_wrapper(studio.artifact, digest=studio.json["artifact_digest"])
    rows = pq.read_table(studio.project / "data/breast_cancer.parquet").to_pandas()
    at_once = wrapper.predict(rows)
    assert isinstance(at_once, pd.DataFrame)
    pd.testing.assert_frame_equal(streamed[list(at_once.columns)], at_once, check_exact=True)


def test_compiled_trees_write_the_same_file_as_the_library(
    lodestar: Lodestar, studio: Trained, tmp_path: Path
) -> None:
    project, draw = studio.project, np.random.default_rng(3)
    rows = pq.read_table(project / "data/breast_cancer.parquet")
    many = rows.take(draw.integers(0, len(rows), 3 * LEAST_ROWS))
    for at, column in enumerate(rows.schema):
        if pa.types.is_floating(column.type):
            values = many.column(at).to_numpy() * draw.uniform(0.9, 1.1, len(many))
            many = many.set_column(at, column, pa.array(values))
    (project / "data/many").mkdir()
    pq.write_table(many, project / "data/many/breast_cancer.parquet")
    written = []
    for native in ("true", "false"):
        text = f"data: {{root: data/many}}\nbatch: {{chunk_rows: {LEAST_ROWS}, native: {native}}}\n"
        (project / f"config/{native}.yaml").write_text(text, encoding="utf-8")
        output = outbox(project, tmp_path) / f"{native}.parquet"
        command = ("batch-inference", "--run-id", studio.run_id, "--output", output)
        done = lodestar(*command, "--env", native, "--json", cwd=project).succeeded()
        assert done.json["rows"] == 3 * LEAST_ROWS
        written.append(output.read_bytes())
    assert written[0] == written[1]


def test_the_snapshot_sql_runs_not_the_file_on_disk(
    lodestar: Lodestar, project: Path, tmp_path: Path
) -> None:
    train = lodestar("train", "-r", "breast_cancer", *SMALL, "--json", cwd=project).succeeded()
    sql = project / "recipes/sql/loaders/breast_cancer.sql"
    batch = ("batch-inference", "--run-id", train.json["run_id"], "--json", "--output")
    before, altered, gone = (
        outbox(project, tmp_path) / name for name in ("a.parquet", "b.parquet", "c.parquet")
    )
    lodestar(*batch, before, cwd=project).succeeded()

    edited(sql, "SELECT * FROM breast_cancer", "SELECT * FROM breast_cancer LIMIT 3")
    edited(project / "recipes/breast_cancer.yaml", "exclude_cols: [sample_id]", "exclude_cols: []")
    assert lodestar(*batch, altered, cwd=project).succeeded().json["rows"] == 569

    shutil.rmtree(project / "recipes")
    lodestar(*batch, gone, cwd=project).succeeded()
    assert before.read_bytes() == altered.read_bytes() == gone.read_bytes()


def test_the_frames_on_the_way_are_written_where_the_config_asks(
    lodestar: Lodestar, studio: Trained
) -> None:
    done = lodestar(
        *("batch-inference", "--run-id", studio.run_id, "--env", "frames", "--json"),
        cwd=studio.project,
    ).succeeded()
    outputs = done.json["outputs"]
    assert outputs.keys() == {"predictions", "augmented", "preprocessed"}
    frames = {name: pq.read_table(studio.project / path) for name, path in outputs.items()}
    assert {len(frame) for frame in frames.values()} == {569}
    assert all(path.startswith("frames/breast_cancer/") for path in outputs.values())
    assert "mean_radius" in frames["augmented"].column_names
    assert all(pa.types.is_floating(field.type) for field in frames["preprocessed"].schema)


@pytest.mark.parametrize("suffix", ["csv", "arrow"])
def test_output_may_be_of_another_kind(
    lodestar: Lodestar, studio: Trained, tmp_path: Path, suffix: str
) -> None:
    output = outbox(studio.project, tmp_path) / "new" / f"scores.{suffix}"
    lodestar(
        *("batch-inference", "--run-id", studio.run_id, "--output", output), cwd=studio.project
    ).succeeded()
    if suffix == "csv":
        frame = pd.read_csv(output)
    else:
        with output.open("rb") as file:
            frame = pa.ipc.open_file(file).read_all().to_pandas()
    assert len(frame) == 569
    assert set(frame["run_id"]) == {studio.run_id}
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_a_prefix_of_the_digest_or_of_the_run_id_names_a_run(
    lodestar: Lodestar, studio: Trained
) -> None:
    for prefix in (studio.run_id[:8], studio.json["artifact_digest"][:12]):
        shown = lodestar("runs", "show", prefix, "--json", cwd=studio.project).succeeded()
        assert shown.json["run_id"] == studio.run_id


def test_an_unknown_and_a_malformed_run_are_errors(lodestar: Lodestar, studio: Trained) -> None:
    batch = ("batch-inference", "--run-id")
    unknown = "0" * 12
    lodestar(*batch, unknown, cwd=studio.project).refused(2, unknown, "runs list")
    for malformed in ("../../etc/passwd", "%", "abc"):
        lodestar(*batch, malformed, cwd=studio.project).refused(2, "is no run id")


# MLflow's tables use a loader strategy that the newest SQLAlchemy deprecates.
@pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")
def test_a_prefix_that_means_two_runs_is_an_error_that_names_both(
    lodestar: Lodestar, studio: Trained
) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{studio.project}/mlruns/mlflow.db")
    run = client.get_run(studio.run_id)
    # A run that was imported from elsewhere, whose recorded id happens to begin the same.
    tags = {"lodestar.run_id": studio.run_id[:8] + "f" * 24}
    other = client.create_run(run.info.experiment_id, tags=tags)
    client.set_terminated(other.info.run_id)
    try:
        lodestar("runs", "show", studio.run_id[:8], cwd=studio.project).refused(
            2, "means several runs", studio.run_id, other.info.run_id
        )
        lodestar("runs", "show", studio.run_id, cwd=studio.project).succeeded()
    finally:
        client.delete_run(other.info.run_id)


def test_no_rows_are_an_error_and_write_nothing(
    lodestar: Lodestar, studio: Trained, sample_project: Path
) -> None:
    data = studio.project / "data/breast_cancer.parquet"
    output = studio.project / "none.parquet"
    table = pq.read_table(data)
    try:
        pq.write_table(table.slice(0, 0), data)
        lodestar(
            *("batch-inference", "--run-id", studio.run_id, "--output", output), cwd=studio.project
        ).refused(3, "no rows to score")
    finally:
        shutil.copy(sample_project / "data/breast_cancer.parquet", data)
    assert not output.exists()


@pytest.mark.parametrize(
    "output", ["/elsewhere/x.parquet", "../x.parquet", "outputs/../../x.parquet"]
)
def test_an_output_outside_the_project_is_refused(
    lodestar: Lodestar, studio: Trained, output: str
) -> None:
    batch = ("batch-inference", "--run-id", studio.run_id, "--output", output)
    lodestar(*batch, cwd=studio.project).refused(2, "outside the project", "output.root")
    assert not (studio.project / output).exists()


def test_an_output_root_of_the_config_may_lie_elsewhere(
    lodestar: Lodestar, studio: Trained, tmp_path: Path
) -> None:
    (studio.project / "config/elsewhere.yaml").write_text(
        f"output: {{root: {tmp_path}}}\n", encoding="utf-8"
    )
    lodestar(
        *("batch-inference", "--run-id", studio.run_id, "--env", "elsewhere"), cwd=studio.project
    ).succeeded()
    (found,) = tmp_path.rglob("*.parquet")
    assert found.name == "predictions.parquet"
