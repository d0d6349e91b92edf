"""Labels that come later: `monitor --labels` over serve-api's log and over what a batch wrote."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import SMALL, Lodestar, Trained, copy_of, outbox
from tests.served_versions import Scorer
from tests.tracking import MLFLOWS_WARNINGS

from lodestar.artifact.register import OpenedRun
from lodestar.artifact.wrapper import load_wrapper
from lodestar.core.labels.results import LabelReport
from lodestar.errors import DataError, SchemaError, UsageError
from lodestar.pipelines.labels import LabelQuestion
from lodestar.pipelines.monitor import Asked, monitor
from lodestar.serving.access_log import Log
from lodestar.serving.prediction_log import PredictionLogger
from lodestar.serving.request_model import RequestModel
from lodestar.serving.telemetry import Telemetry
from lodestar.serving.version import Parts, RowAnswer, ServedVersion
from lodestar.settings.loading import load_config
from lodestar.settings.serving import PredictionLog

pytestmark = MLFLOWS_WARNINGS

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAYS, ROWS, WORSE_FROM = 5, 90, 3


@pytest.fixture(scope="module")
def clinic(trained: Callable[..., Trained], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run with five days of answers in its log, and the labels that came two hours after each."""
    run = trained("breast_cancer", *SMALL)
    project = copy_of(run.project, tmp_path_factory.mktemp("labelled") / "project")
    shutil.copytree(run.project / "mlruns", project / "mlruns")
    clinic = Trained(project, run.json)
    labels = answered(clinic)
    pq.write_table(labels, project / "data/labels.parquet")
    return clinic


def answered(clinic: Trained) -> pa.Table:
    """Log what the model says day by day; from the fourth on half of the labels are turned round."""
    wrapper, _ = load_wrapper(clinic.artifact)
    contents = wrapper.contents
    table = pq.read_table(clinic.project / "data/breast_cancer.parquet")
    run = OpenedRun(clinic.run_id, "served", clinic.json["artifact_digest"], clinic.artifact)
    request = RequestModel.of(contents, (), joined=False)
    served = ServedVersion(
        run, contents, Parts(request, Scorer(0.5), None, None, degrade=False), Telemetry()
    )
    now = [NOON]
    logger = PredictionLogger(
        PredictionLog(folder="logs", flush_seconds=3600.0),
        clinic.project / "logs",
        Telemetry(),
        Log(2),
        clock=lambda: int(now[0].timestamp()) * 1_000_000_000,
    )
    draw = np.random.default_rng(3)
    labels = []
    for day in range(DAYS):
        now[0] = NOON + timedelta(days=day)
        rows = table.take(draw.integers(0, len(table), ROWS)).combine_chunks()
        said = wrapper.predictions(rows.to_batches()[0])
        assert said.probabilities is not None
        for place, row in enumerate(rows.to_pylist()):
            shares = dict(
                zip(("benign", "malignant"), map(float, said.probabilities[place]), strict=True)
            )
            inputs = tuple(row[name] for name in contents.roles.inputs)
            answer = RowAnswer(
                said.classes[int(said.values[place])], shares, shares["malignant"], inputs
            )
            asked = tuple(row.get(name) for name in request.names)
            # Requests of ten rows each.
            logger.add(served, f"{day}-{place // 10}", asked, answer, place=place % 10)
            turned = day >= WORSE_FROM and place % 2
            true = row["diagnosis"]
            other = "benign" if true == "malignant" else "malignant"
            labels.append(
                {
                    "request_id": f"{day}-{place // 10}",
                    "request_row": place % 10,
                    "diagnosis": other if turned else true,
                    "labelled_at": now[0] + timedelta(hours=2),
                }
            )
    logger.close()
    return pa.Table.from_pylist(labels)


def asked(clinic: Trained, labels: str, log: str = "logs", **how: Any) -> LabelReport:  # noqa: ANN401 -- any field
    environment = load_config(clinic.project, None, variables={})
    question = LabelQuestion(labels, **how)
    told = monitor(environment, clinic.run_id, Asked(log=log, labels=question)).labels
    assert told is not None
    return told


def written(clinic: Trained, name: str, table: pa.Table) -> str:
    pq.write_table(table, clinic.project / "data" / f"{name}.parquet")
    return f"data/{name}.parquet"


def labels_of(clinic: Trained) -> pa.Table:
    return pq.read_table(clinic.project / "data/labels.parquet")


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:  # noqa: ANN401 -- what pa.array takes
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values))


def test_a_model_that_labels_say_became_worse_is_told_since_when_and_for_whom(
    lodestar: Lodestar, clinic: Trained, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    words = (
        "monitor",
        "--run-id",
        clinic.run_id,
        "--log",
        "logs",
        "--labels",
        "data/labels.parquet",
    )
    done = lodestar(
        *words,
        *("--segment", "mean_radius", "--html", page, "--fail-on-degradation", "--json"),
        cwd=clinic.project,
    )
    assert done.code == 7, done.stderr
    told = done.json["labels"]
    assert told["verdict"] == "degraded"
    assert told["keys"] == ["request_id", "request_row"]
    assert told["coverage"]["share"] == 1.0
    assert told["coverage"]["delay_median"] == 7_200
    assert [part["state"] for part in told["parts"]] == ["judged"] * DAYS
    verdicts = [part["performance"]["verdict"] for part in told["parts"]]
    assert "degraded" not in verdicts[:WORSE_FROM]
    assert verdicts[WORSE_FROM:] == ["degraded"] * (DAYS - WORSE_FROM)
    assert told["since"]["accuracy"] == "2026-03-04T00:00:00+00:00"
    assert sum(each["labelled"] for each in told["segments"]) == DAYS * ROWS
    text = page.read_text(encoding="utf-8")
    assert "Outcomes" in text
    assert "Whether probabilities hold" in text

    with closing(sqlite3.connect(clinic.project / "mlruns/mlflow.db")) as database:
        rows = database.execute(
            "SELECT key, value FROM tags WHERE run_uuid = ? AND key LIKE 'lodestar.labels%'",
            (clinic.run_id,),
        )
        tags = dict(rows.fetchall())
    assert tags["lodestar.labels"] == "degraded"
    assert tags["lodestar.labels.accuracy"] == "degraded"
    assert tags["lodestar.labels.labelled"] == str(DAYS * ROWS)

    before = lodestar(*words, "--until", "2026-03-04", "--fail-on-degradation", cwd=clinic.project)
    before.succeeded()
    assert "270 of 270 predictions have a label" in before.stderr
    assert "2026-03-02" in before.stderr


def test_labels_by_sql_and_by_the_entitys_keys(clinic: Trained) -> None:
    sql = clinic.project / "recipes/sql/outcomes.sql"
    sql.write_text("SELECT sample_id, diagnosis FROM breast_cancer WHERE mean_radius > :least\n")
    told = asked(clinic, "recipes/sql/outcomes.sql", params={"least": "0"})
    assert told.keys == ("sample_id",)
    assert told.coverage.share == 1.0
    assert told.coverage.delay_median is None
    assert told.verdict != "degraded"


def test_the_key_can_be_named(clinic: Trained) -> None:
    told = asked(clinic, "data/breast_cancer.parquet", keys=("sample_id", "mean_radius"))
    assert told.keys == ("sample_id", "mean_radius")
    assert told.coverage.share == 1.0
    with pytest.raises(SchemaError, match="no column 'sample' "):
        asked(clinic, "data/breast_cancer.parquet", keys=("sample",))


def test_what_a_batch_wrote_is_judged_as_one(lodestar: Lodestar, clinic: Trained) -> None:
    done = lodestar("batch-inference", "--run-id", clinic.run_id, "--json", cwd=clinic.project)
    predictions = done.succeeded().json["outputs"]["predictions"]
    judged = lodestar(
        *("monitor", "--run-id", clinic.run_id, "--data", predictions, "--json"),
        *("--labels", "data/breast_cancer.parquet"),
        cwd=clinic.project,
    )
    told = judged.succeeded().json["labels"]
    assert told["parts"] == []
    assert told["whole"]["rows"] == 569
    # A table may hold what several runs wrote.
    own = pq.ParquetFile(clinic.project / predictions).read()
    other = replaced(own.slice(0, 100), "artifact_digest", ["f" * 64] * 100)
    both = pa.concat_tables([own.cast(other.schema), other])
    report = lodestar(
        *("monitor", "--run-id", clinic.run_id, "--data", written(clinic, "both", both), "--json"),
        *("--labels", "data/breast_cancer.parquet"),
        cwd=clinic.project,
    )
    mixed = report.succeeded().json
    assert (mixed["drift"]["rows"], mixed["labels"]["whole"]["rows"]) == (569, 569)
    assert mixed["notes"] == ["rows of other artifacts are left out: 100"]
    assert told["whole"]["metrics"]["accuracy"]["value"] > 0.9


def test_what_is_left_out_is_counted_and_said(clinic: Trained) -> None:
    table = labels_of(clinic)
    future = replaced(table.slice(0, 4), "labelled_at", [datetime(2100, 1, 1, tzinfo=UTC)] * 4)
    strange = replaced(table.slice(4, 3), "request_id", ["nobody's"] * 3)
    unknown = replaced(table.slice(7, 2), "diagnosis", ["unclear"] * 2)
    empty = replaced(table.slice(9, 1), "diagnosis", pa.array([None], pa.string()))
    doubled = table.slice(20, 1)
    other = "benign" if doubled["diagnosis"][0].as_py() == "malignant" else "malignant"
    disagreeing = replaced(doubled, "diagnosis", [other])
    parts = [future, strange, unknown, empty, disagreeing, table.slice(10)]
    told = asked(clinic, written(clinic, "odd", pa.concat_tables(parts)))
    counts = told.counts
    assert (counts.future, counts.without_prediction, counts.unknown) == (4, 3, 2)
    assert (counts.empty, counts.conflicting) == (1, 2)
    assert told.coverage.labelled == DAYS * ROWS - 11
    assert sum(part.coverage.labelled for part in told.parts) == told.coverage.labelled
    notes = " ".join(told.notes)
    assert "labels dated after now are left out: a clock is wrong: 4" in notes
    assert "disagree and are left out: 2" in notes


def test_a_label_that_comes_too_late_does_not_count(clinic: Trained) -> None:
    told = asked(clinic, "data/labels.parquet", within=timedelta(hours=3))
    assert told.counts.late == 0
    with pytest.raises(DataError, match=r"no label of data/labels\.parquet belongs") as refused:
        asked(clinic, "data/labels.parquet", within=timedelta(hours=1))
    assert "too late to count: 450" in str(refused.value.hint)


def test_a_request_of_several_rows_needs_their_numbers(clinic: Trained) -> None:
    table = labels_of(clinic).drop_columns(["request_row"])
    with pytest.raises(DataError, match="belongs to a prediction") as refused:
        asked(clinic, written(clinic, "rowless", table))
    assert "labels need request_row too: 450" in str(refused.value.hint)


def changed_log(
    clinic: Trained, name: str, day: str, change: Callable[[pa.Table], pa.Table]
) -> Path:
    """A copy of the log in which a day's file has changed; its folder."""
    shutil.copytree(clinic.project / "logs", clinic.project / name)
    folder = clinic.project / name / "breast_cancer"
    digest = str(clinic.json["artifact_digest"])[:12]
    (path,) = (folder / f"date={day}/hour=12").glob(f"{digest}-*")
    pq.write_table(change(pq.ParquetFile(path).read()), path)
    return path.parent


def test_rows_of_an_older_log_that_do_not_say_their_number_get_no_others_label(
    clinic: Trained,
) -> None:
    changed_log(clinic, "old", "2026-03-02", lambda rows: rows.drop_columns(["request_row"]))
    told = asked(clinic, "data/labels.parquet", log="old")
    assert told.counts.keyless == ROWS
    assert told.coverage.labelled == (DAYS - 1) * ROWS


def test_predictions_that_a_clock_dated_after_now_are_said_and_not_judged(clinic: Trained) -> None:
    def ahead(rows: pa.Table) -> pa.Table:
        at = pa.array([datetime(2100, 1, 1, 12, tzinfo=UTC)] * len(rows), pa.timestamp("us", "UTC"))
        return replaced(rows, "logged_at", at)

    hour = changed_log(clinic, "ahead", "2026-03-02", ahead)
    (hour.parents[1] / "date=2100-01-01").mkdir()
    hour.rename(hour.parents[1] / "date=2100-01-01/hour=12")
    told = asked(clinic, "data/labels.parquet", log="ahead")
    assert told.counts.ahead == ROWS
    assert told.parts[-1].state == "too early"
    assert "predictions are dated after now: a clock was wrong: 90" in told.notes


def test_rows_of_another_artifact_are_left_out(clinic: Trained) -> None:
    hour = next((clinic.project / "logs/breast_cancer").glob("date=2026-03-01/hour=12"))
    (own,) = [path for path in hour.iterdir() if not path.name.startswith("f" * 12)]
    rows = pq.read_table(own)
    foreign = replaced(rows, "artifact_digest", ["f" * 64] * len(rows))
    pq.write_table(foreign, hour / f"{'f' * 12}-1-abc.parquet")
    told = asked(clinic, "data/labels.parquet")
    assert told.coverage.predictions == DAYS * ROWS


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda rows: rows.drop_columns(["diagnosis"]), SchemaError, "no column 'diagnosis'"),
        (
            lambda rows: replaced(rows, "diagnosis", [1] * len(rows)),
            SchemaError,
            "the classes of training are string",
        ),
        (
            lambda rows: replaced(rows, "labelled_at", ["soon"] * len(rows)),
            SchemaError,
            "is a string, and no date or time",
        ),
        (lambda rows: rows.drop_columns(["request_id"]), SchemaError, "no key that"),
        (
            lambda rows: replaced(rows, "request_id", list(range(len(rows)))),
            SchemaError,
            "the key 'request_id' is a int64 in the labels and a string in the predictions",
        ),
        (lambda rows: rows.slice(0, 0), DataError, "has no labels"),
        (
            lambda rows: replaced(rows, "request_id", ["x"] * len(rows)),
            DataError,
            "belongs to a prediction",
        ),
    ],
)
def test_labels_that_cannot_be_are_refused(
    clinic: Trained, change: Callable[[pa.Table], pa.Table], error: type[DataError], words: str
) -> None:
    with pytest.raises(error, match=words) as refused:
        asked(clinic, written(clinic, "wrong", change(labels_of(clinic))))
    assert refused.value.hint


def test_segments_and_options_that_cannot_be_are_refused(
    lodestar: Lodestar, clinic: Trained
) -> None:
    with pytest.raises(UsageError, match="the predictions have no such column") as refused:
        asked(clinic, "data/labels.parquet", segments=("mean_radiu",))
    assert "mean_radius" in str(refused.value.hint)
    with pytest.raises(UsageError, match="takes no --context-params"):
        asked(clinic, "data/labels.parquet", params={"a": "b"})
    words = ("monitor", "--run-id", clinic.run_id, "--log", "logs")
    lodestar(*words, "--segment", "mean_radius", cwd=clinic.project).refused(2, "give --labels")
    lodestar(
        *words, "--labels", "data/labels.parquet", "--within", "soon", cwd=clinic.project
    ).refused(2, "--within 'soon' is no time span", "7d")
    environment = load_config(clinic.project, None, variables={})
    rows = Asked(data="data/breast_cancer.parquet", labels=LabelQuestion("data/labels.parquet"))
    with pytest.raises(SchemaError, match="no predictions to be judged"):
        monitor(environment, clinic.run_id, rows)


@pytest.mark.parametrize(
    ("recipe", "labels", "kind"),
    [
        ("diabetes", "data/diabetes.parquet", "residuals"),
        ("uplift_model_exp3", "data/snapshots/uplift_model_exp3.parquet", "uplift"),
    ],
)
def test_every_task_is_judged_by_its_own_measures(
    lodestar: Lodestar,
    trained: Callable[..., Trained],
    tmp_path: Path,
    recipe: str,
    labels: str,
    kind: str,
) -> None:
    run = trained(recipe)
    output = outbox(run.project, tmp_path) / "predictions.parquet"
    lodestar(
        "batch-inference", "--run-id", run.run_id, "--output", output, cwd=run.project
    ).succeeded()
    page = tmp_path / "page.html"
    done = lodestar(
        *("monitor", "--run-id", run.run_id, "--data", output, "--labels", labels),
        *("--html", page, "--json"),
        cwd=run.project,
    )
    told = done.succeeded().json["labels"]
    assert told["verdict"] != "degraded"
    detail = told["whole"]["detail"]
    assert detail["kind"] == kind
    assert set(told["whole"]["metrics"]) == set(told["trained"])
    text = page.read_text(encoding="utf-8")
    if kind == "residuals":
        assert told["parts"] == []
        assert detail["bias"]["low"] < detail["bias"]["value"] < detail["bias"]["high"]
        assert "Prediction minus truth" in text
    else:
        assert told["keys"][-1] == "event_timestamp"
        assert len(told["parts"]) > 20
        assert len(detail["deciles"]) == 10
        assert "Uplift by tenths" in text
