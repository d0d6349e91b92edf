"""Drift without a reference data set: `batch-inference` and `monitor` against an artifact's sketches."""

import json
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.conftest import SMALL, Lodestar, Trained, copy_of
from tests.served_versions import Scorer
from tests.tracking import MLFLOWS_WARNINGS

from lodestar.artifact.manifest import digest_of, write_manifest
from lodestar.artifact.register import OpenedRun, Register
from lodestar.artifact.sketches import SKETCHES, read_sketches
from lodestar.artifact.store import RunStore
from lodestar.errors import ArtifactError, DataError, SchemaError, UsageError
from lodestar.infra.endpoint import free_port
from lodestar.interface.progress import Silent
from lodestar.pipelines.drift import tell_store
from lodestar.pipelines.monitor import Asked, MonitoredRun, monitor
from lodestar.serving.access_log import Log
from lodestar.serving.prediction_log import PredictionLogger
from lodestar.serving.request_model import RequestModel
from lodestar.serving.telemetry import Telemetry
from lodestar.serving.version import Parts, RowAnswer, ServedVersion
from lodestar.settings.config import MlflowTracking
from lodestar.settings.loading import load_config
from lodestar.settings.serving import PredictionLog

pytestmark = MLFLOWS_WARNINGS

KEPT = Path(__file__).parents[1] / "fixtures" / "artifact-v1.tar.gz"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def studio(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """A project with one trained run, and its rows as they were and as they may become."""
    project = lodestar.stocked(
        copy_of(sample_project, tmp_path_factory.mktemp("drifting") / "project")
    )
    done = lodestar("train", "-r", "breast_cancer", *SMALL, "--json", cwd=project)
    table = pq.read_table(project / "data/breast_cancer.parquet")
    pq.write_table(moved(table, "mean_radius", 3.0), project / "data/moved.parquet")
    pq.write_table(table.drop_columns(["mean_radius"]), project / "data/gone.parquet")
    extra = table.append_column("weather", pa.array(["fine"] * len(table)))
    pq.write_table(extra, project / "data/added.parquet")
    texts = table.column("mean_area").cast(pa.string())
    place = table.schema.get_field_index("mean_area")
    pq.write_table(table.set_column(place, "mean_area", texts), project / "data/text.parquet")
    pq.write_table(table.slice(0, 0), project / "data/empty.parquet")
    pq.write_table(table.select(["diagnosis"]), project / "data/foreign.parquet")
    return Trained(project, done.succeeded().json)


def moved(table: pa.Table, name: str, by: float) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pc.add(table.column(name), by))


def monitored(studio: Trained, **asked: Any) -> MonitoredRun:  # noqa: ANN401 -- any of Asked's fields
    environment = load_config(studio.project, None, variables={})
    return monitor(environment, studio.run_id, Asked(**asked))


def drift_tags(project: Path, run_id: str) -> dict[str, str]:
    with closing(sqlite3.connect(project / "mlruns/mlflow.db")) as database:
        rows = database.execute(
            "SELECT key, value FROM tags WHERE run_uuid = ? AND key LIKE 'lodestar.drift%'",
            (run_id,),
        )
        return dict(rows.fetchall())


def test_a_batch_like_the_training_rows_is_steady_and_one_that_is_not_is_named(
    lodestar: Lodestar, studio: Trained, tmp_path: Path
) -> None:
    project = copy_of(studio.project, tmp_path / "project")
    shutil.copytree(studio.project / "mlruns", project / "mlruns")
    batch = ("batch-inference", "--run-id", studio.run_id, "--json", "--fail-on-drift")
    steady = lodestar(*batch, cwd=project).succeeded().json["drift"]
    assert (steady["verdict"], steady["drifted"], steady["rows"]) == ("steady", [], 569)
    assert {each["role"] for each in steady["columns"]} == {"feature", "prediction"}

    shutil.copyfile(project / "data/moved.parquet", project / "data/breast_cancer.parquet")
    done = lodestar(*batch, cwd=project)
    assert done.code == 7, done.stderr
    assert (project / done.json["outputs"]["predictions"]).is_file()
    drift = done.json["drift"]
    assert drift["verdict"] == "drift"
    assert "mean_radius" in drift["drifted"]
    told = drift_tags(project, studio.run_id)
    assert told["lodestar.drift"] == "drift"
    assert "mean_radius" in told["lodestar.drift.columns"]
    assert told["lodestar.drift.rows"] == "569"
    # MLflow's own client reads what was written beside it.
    shown = lodestar(
        "monitor", "--run-id", studio.run_id, "--data", "data/moved.parquet", cwd=project
    )
    shown.succeeded()
    assert "mean_radius" in shown.stderr
    assert "distributed otherwise" in shown.stderr


def test_the_tags_are_mlflows_own(studio: Trained) -> None:
    from mlflow.tracking import MlflowClient

    monitored(studio, data="data/moved.parquet")
    uri = f"sqlite:///{studio.project / 'mlruns/mlflow.db'}"
    told = MlflowClient(tracking_uri=uri).get_run(studio.run_id).data.tags
    assert told["lodestar.drift"] == "drift"
    assert told["lodestar.drift.source"] == "monitor data/moved.parquet"


def test_batches_in_any_chunks_and_kept_parts_give_the_same_report(
    lodestar: Lodestar, studio: Trained
) -> None:
    found = []
    for rows, options in ((7, ()), (65_536, ()), (50, ("--resume",))):
        name = f"chunk{rows}"
        (studio.project / f"config/{name}.yaml").write_text(
            f"batch: {{chunk_rows: {rows}, part_rows: 200}}\n"
        )
        done = lodestar(
            *("batch-inference", "--run-id", studio.run_id, "--env", name, "--json", *options),
            cwd=studio.project,
        )
        found.append(done.succeeded().json["drift"])
    assert found[0] == found[1] == found[2]


def test_drift_that_is_off_is_not_watched(lodestar: Lodestar, studio: Trained) -> None:
    (studio.project / "config/off.yaml").write_text("drift: {enabled: false}\n")
    done = lodestar(
        *("batch-inference", "--run-id", studio.run_id, "--env", "off", "--json"),
        cwd=studio.project,
    )
    assert done.succeeded().json["drift"] is None


def test_what_is_missing_or_of_another_type_is_told_with_every_difference(studio: Trained) -> None:
    with pytest.raises(SchemaError, match="mean_radius: missing"):
        monitored(studio, data="data/gone.parquet")
    with pytest.raises(SchemaError, match="mean_area: string, was float in training"):
        monitored(studio, data="data/text.parquet")
    with pytest.raises(SchemaError, match="neither features nor predictions") as refused:
        monitored(studio, data="data/foreign.parquet")
    assert "mean_radius" in str(refused.value.hint)


def test_a_column_that_is_new_is_left_alone_and_said_so(studio: Trained) -> None:
    run = monitored(studio, data="data/added.parquet")
    assert run.report.verdict == "steady"
    assert run.notes == ("columns that training had not are left alone: weather",)


def test_what_was_written_by_batch_inference_can_be_compared_alone(
    lodestar: Lodestar, studio: Trained
) -> None:
    done = lodestar("batch-inference", "--run-id", studio.run_id, "--json", cwd=studio.project)
    run = monitored(studio, data=done.succeeded().json["outputs"]["predictions"])
    judged = {each.name for each in run.report.columns if each.verdict != "too few rows"}
    assert judged == {each.name for each in run.report.judged}
    assert judged == {"prediction", "probability_benign", "probability_malignant"}
    assert not run.notes


def test_columns_that_a_table_of_predictions_has_are_no_news(
    lodestar: Lodestar, studio: Trained
) -> None:
    done = lodestar("batch-inference", "--run-id", studio.run_id, "--json", cwd=studio.project)
    written = pq.read_table(studio.project / done.succeeded().json["outputs"]["predictions"])
    marks = pa.array(["start_date=2025-01-01"] * written.num_rows)
    table = studio.project / "data/marked.parquet"
    pq.write_table(written.append_column("context_params", marks), table)
    assert not monitored(studio, data="data/marked.parquet").notes


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "either a data URI or a prediction log"),
        ({"data": "a.parquet", "log": "logs"}, "either a data URI or a prediction log"),
        ({"data": "a.parquet", "since": NOON}, "--since and --until select rows of a log"),
        ({"log": "logs", "since": NOON, "until": NOON}, "is not before --until"),
    ],
)
def test_what_makes_no_sense_to_ask_is_refused(
    studio: Trained, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        monitored(studio, **asked)
    assert refused.value.hint


def test_no_rows_and_no_file_are_told(studio: Trained) -> None:
    with pytest.raises(DataError, match="has no rows"):
        monitored(studio, data="data/empty.parquet")
    with pytest.raises(DataError, match="there is no file"):
        monitored(studio, data="data/moove.parquet")


def test_a_date_that_is_none_is_a_usage_error(lodestar: Lodestar, studio: Trained) -> None:
    for text in ("yesterday", "2026-13-01"):
        done = lodestar(
            *("monitor", "--run-id", studio.run_id, "--log", "logs", "--since", text),
            cwd=studio.project,
        )
        done.refused(2, f"--since '{text}' is neither a date nor a time", "2026-03-01T12:00")


# The prediction log, written by the writer that serve-api has.


class Clock:
    """Says the time that it was set to (ns since 1970)."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        return int(self.now.timestamp()) * 1_000_000_000


@pytest.fixture(scope="module")
def log(studio: Trained) -> Path:
    """Six hours of answers; from the fourth on the first feature has moved."""
    from lodestar.artifact.wrapper import load_wrapper

    wrapper, _ = load_wrapper(studio.artifact)
    run = OpenedRun(studio.run_id, "served", studio.json["artifact_digest"], studio.artifact)
    table = pq.read_table(studio.project / "data/breast_cancer.parquet")
    folder, clock = studio.project / "logs", Clock()
    write(folder, clock, run, wrapper.contents, table, hours=6, moves={"mean_radius": (3, 4.0)})
    turning = studio.project / "logs-that-turn"
    write(turning, clock, run, wrapper.contents, table, hours=14, moves={"mean_texture": (12, 3.0)})
    return folder


def write(
    folder: Path,
    clock: Clock,
    run: OpenedRun,
    contents: Any,  # noqa: ANN401 -- an artifact's contents
    table: pa.Table,
    *,
    hours: int,
    moves: Mapping[str, tuple[int, float]],
) -> None:
    request = RequestModel.of(contents, (), joined=False)
    parts = Parts(request, Scorer(0.5), None, None, degrade=False)
    served = ServedVersion(run, contents, parts, Telemetry())
    settings = PredictionLog(folder="logs", flush_seconds=3600.0)
    draw = np.random.default_rng(3)
    logger = PredictionLogger(settings, folder, Telemetry(), Log(2), clock=clock)
    for hour in range(hours):
        clock.now = NOON + timedelta(hours=hour, minutes=5)
        rows = table.take(draw.integers(0, len(table), 200))
        for name, (begins, by) in moves.items():
            rows = moved(rows, name, by) if hour >= begins else rows
        for row in rows.to_pylist():
            inputs = tuple(row[name] for name in contents.roles.inputs)
            asked: Sequence[Any] = tuple(row.get(name) for name in request.names)
            malignant = 0.95 if row["diagnosis"] == "malignant" else 0.05
            shares = {"benign": 1 - malignant, "malignant": malignant}
            answer = RowAnswer(row["diagnosis"], shares, malignant, inputs)
            logger.add(served, "an id", asked, answer)
    logger.close()


def test_a_log_tells_what_changed_and_since_when(studio: Trained, log: Path) -> None:
    run = monitored(studio, log="logs")
    assert run.report.rows == 1_200
    assert run.report.verdict == "drift"
    assert run.since("mean_radius") == NOON + timedelta(hours=3)
    assert [part.begins for part in run.slices] == [NOON + timedelta(hours=at) for at in range(6)]
    assert [part.report.rows for part in run.slices] == [200] * 6
    assert log.is_dir()


def test_drift_that_has_only_begun_is_told_before_it_shows_in_all_rows(
    lodestar: Lodestar, studio: Trained, log: Path, tmp_path: Path
) -> None:
    del log
    page = tmp_path / "pages" / "drift.html"
    done = lodestar(
        *("monitor", "--run-id", studio.run_id, "--log", "logs-that-turn", "--json"),
        *("--html", page, "--fail-on-drift"),
        cwd=studio.project,
    )
    assert done.code == 7, done.stderr
    assert "mean_texture" in done.json["lately"]
    assert "mean_texture" not in done.json["drift"]["drifted"]
    assert done.json["verdict"] == "drift"
    began = NOON + timedelta(hours=12)
    assert done.json["since"]["mean_texture"] == began.isoformat()
    text = page.read_text(encoding="utf-8")
    assert "mean_texture (since 2026-03-02 00:00)" in text
    assert [path.name for path in page.parent.iterdir()] == ["drift.html"]


def test_a_page_that_cannot_be_written_is_an_error(
    lodestar: Lodestar, studio: Trained, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = lodestar(
        *("monitor", "--run-id", studio.run_id, "--data", "data/moved.parquet"),
        *("--html", tmp_path / "file" / "page.html"),
        cwd=studio.project,
    )
    done.refused(4, "page.html cannot be written", "--html")


def test_a_part_of_the_time_can_be_asked_for(studio: Trained, log: Path) -> None:
    before = monitored(
        studio, log=str(log), since=NOON + timedelta(hours=1), until=NOON + timedelta(hours=3)
    )
    assert before.report.rows == 400
    assert "mean_radius" not in {each.name for each in before.report.drifted}
    # Within an hour rows are told by the moment that they were logged at.
    cut = NOON + timedelta(hours=4, minutes=5)
    assert (
        monitored(studio, log="logs", since=cut, until=cut + timedelta(minutes=1)).report.rows
        == 200
    )
    with pytest.raises(DataError, match="has no row"):
        monitored(
            studio, log="logs", since=cut + timedelta(minutes=1), until=cut + timedelta(minutes=9)
        )


def test_an_empty_window_says_what_there_is(studio: Trained, log: Path) -> None:
    del log
    with pytest.raises(DataError, match="has no row of artifact") as refused:
        monitored(studio, log="logs", since=NOON + timedelta(days=1))
    assert "2026-03-01T12:00 to 2026-03-01T18:00" in str(refused.value.hint)


def test_rows_of_other_artifacts_are_left_out_and_said_so(
    studio: Trained, log: Path, tmp_path: Path
) -> None:
    other = studio.project / "logs-of-two"
    shutil.copytree(log, other)
    hour = next((other / "breast_cancer").glob("date=*/hour=12"))
    (file,) = hour.iterdir()
    table = pq.read_table(file)
    foreign = "f" * 64
    place = table.schema.get_field_index("artifact_digest")
    changed = table.set_column(place, "artifact_digest", pa.array([foreign] * len(table)))
    pq.write_table(changed, hour / f"{foreign[:12]}-1-abc.parquet")
    run = monitored(studio, log="logs-of-two")
    assert run.report.rows == 1_200
    assert run.notes == ("files of other artifacts are left out: 1",)
    for path in other.rglob(f"{studio.json['artifact_digest'][:12]}-*.parquet"):
        path.unlink()
    with pytest.raises(DataError, match="has no row of artifact") as refused:
        monitored(studio, log="logs-of-two")
    assert f"{foreign[:12]} (1 files)" in str(refused.value.hint)


def test_no_folder_and_a_folder_without_a_log_are_told(studio: Trained, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder") as refused:
        monitored(studio, log="lgos")
    assert "prediction_log.folder" in str(refused.value.hint)
    (tmp_path / "wine" / "date=2026-13-01" / "hour=12").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no prediction log of breast_cancer") as refused:
        monitored(studio, log=str(tmp_path))
    assert "wine" in str(refused.value.hint)


def test_a_log_file_that_is_damaged_is_named(studio: Trained, log: Path, tmp_path: Path) -> None:
    broken = tmp_path / "logs"
    shutil.copytree(log, broken)
    written = NOON.strftime("%Y-%m-%d")
    files = [path for path in broken.rglob("*.parquet") if written in str(path)]
    for file in files:
        file.write_bytes(file.read_bytes()[:400])
    with pytest.raises(DataError) as caught:
        monitored(studio, log=str(broken))
    assert any(file.name in str(caught.value) for file in files)


# The sketches' own format.


@pytest.fixture
def artifact(studio: Trained, tmp_path: Path) -> Path:
    """A copy of the artifact, to be changed."""
    return shutil.copytree(studio.artifact, tmp_path / "artifact")


def registered(studio: Trained, artifact: Path, run_id: str) -> Trained:
    """The copy as a run of its own, sealed anew."""
    write_manifest(artifact)
    register = Register(studio.project / "mlruns/artifacts/register")
    register.add(OpenedRun(run_id, "a copy", digest_of(artifact), artifact))
    return Trained(studio.project, {**studio.json, "run_id": run_id})


def test_sketches_are_sealed_with_the_artifact(
    lodestar: Lodestar, studio: Trained, artifact: Path
) -> None:
    run = registered(studio, artifact, "5eed" * 8)
    file = artifact / "lodestar" / SKETCHES
    file.write_text(file.read_text().replace('"psi"', '"PSI"') + " ")
    done = lodestar(
        "monitor", "--run-id", run.run_id, "--data", "data/moved.parquet", cwd=run.project
    )
    done.refused(6, SKETCHES, "tampered")


def test_an_artifact_from_before_says_so_and_still_scores(
    lodestar: Lodestar, studio: Trained, artifact: Path
) -> None:
    (artifact / "lodestar" / SKETCHES).unlink()
    run = registered(studio, artifact, "01de" * 8)
    with pytest.raises(ArtifactError, match="has no sketches") as refused:
        monitored(run, data="data/moved.parquet")
    assert "train again" in str(refused.value.hint)
    done = lodestar("batch-inference", "--run-id", run.run_id, "--json", cwd=run.project)
    assert done.succeeded().json["drift"] is None
    assert "drift is not watched" in done.stderr


def test_the_kept_artifact_of_format_1_has_none(tmp_path: Path) -> None:
    with tarfile.open(KEPT) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = next(tmp_path.rglob("contents.json")).parent.parent
    with pytest.raises(ArtifactError, match="has no sketches"):
        read_sketches(folder)


@pytest.mark.parametrize(
    ("version", "hint"), [(2, "upgrade"), (0, "train again"), ("x", "train again")]
)
def test_sketches_of_another_version_are_refused_by_name(
    artifact: Path, version: object, hint: str
) -> None:
    file = artifact / "lodestar" / SKETCHES
    value = json.loads(file.read_text()) | {"sketch_version": version}
    file.write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match=f"version {version}") as refused:
        read_sketches(artifact)
    assert hint in str(refused.value.hint)


def test_a_watch_of_newer_sketches_is_told_and_scoring_goes_on(
    studio: Trained, artifact: Path
) -> None:
    from lodestar.pipelines.drift import watch_of
    from lodestar.settings.monitoring import Drift

    file = artifact / "lodestar" / SKETCHES
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sketch_version": 9}))
    assert watch_of(artifact, Drift(), Silent()) is None
    assert watch_of(studio.artifact, Drift(), Silent()) is not None


def test_a_sensitive_feature_leaves_no_value_in_the_sketches(
    trained: Callable[..., Trained],
) -> None:
    made = trained("uplift_model_exp3")
    text = (made.artifact / "lodestar" / SKETCHES).read_text()
    columns = {each["name"]: each for each in json.loads(text)["columns"]}
    secret, plain = columns["country_code"], columns["brand"]
    assert secret["values"] == [f"bucket {at}" for at in range(16)]
    assert sum(secret["counts"]) + secret["nulls"] == secret["rows"]
    assert not any(value.startswith("bucket") for value in plain["values"])


def test_a_store_that_cannot_be_told_is_told_of(studio: Trained, tmp_path: Path) -> None:
    report = monitored(studio, data="data/moved.parquet").report
    config = MlflowTracking.model_validate(
        {
            "experiment_name": "gone",
            "tracking_uri": f"http://127.0.0.1:{free_port()}",
            "artifact_root": "mlruns/artifacts",
        }
    )
    heard = Heard()
    store = RunStore(config, tmp_path, "local")
    tell_store(store, studio.run_id, report, source="a test", now=NOON, tell=heard)
    (note,) = heard.notes
    assert "MLflow was not told of the drift check" in note
    assert "does not answer" in note


class Heard(Silent):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        """Keep it."""
        self.notes.append(message)
