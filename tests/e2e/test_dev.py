"""DEV from end to end: the same recipe, untouched, on real PostgreSQL and Redis."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tests.conftest import Lodestar, edited

RECIPE = "uplift_model_exp3"
ALL = ("--context-params", "start_date=2025-01-01,end_date=2025-05-01")
LAST_DAYS = ("--context-params", "start_date=2025-03-25,end_date=2025-04-01")
DEV = {"APP_ENV": "dev"}
SMALL = ("--set", "model.hyperparameters.n_estimators=5")


def _scores(project: Path, outputs: Mapping[str, str]) -> pa.Table:
    return pq.read_table(project / outputs["predictions"]).sort_by("session_id")


def test_the_join_gives_the_very_rows_that_the_shop_was_made_from(
    lodestar: Lodestar, dev_project: Path, dev_run: str
) -> None:
    """LOCAL's snapshot was joined by other code, before there was a database: same fingerprint."""
    local = lodestar("train", "-r", RECIPE, *SMALL, "--json", cwd=dev_project).succeeded()
    ids = [dev_run, local.json["run_id"]]
    shown = [
        lodestar("runs", "show", one, "--json", cwd=dev_project).succeeded().json for one in ids
    ]
    assert shown[0]["params"]["data.sha256"] == shown[1]["params"]["data.sha256"]
    assert shown[0]["metrics"]["auuc"] == shown[1]["metrics"]["auuc"]
    assert [_joined_by(dev_project, one) for one in ids] == [
        "lodestar.adapters.joins.point_in_time over postgres",
        "nobody: the rows came with them",
    ]


def _joined_by(project: Path, run_id: str) -> str:
    """What an artifact says of how its features came to its rows."""
    (contents,) = [
        json.loads(path.read_text())
        for path in (project / "mlruns").rglob("lodestar/contents.json")
        if f"run_id: {run_id}" in (path.parents[1] / "MLmodel").read_text()
    ]
    return str(contents["augmenter_config_snapshot"]["joined_by"])


def test_a_batch_from_the_snapshot_sql_is_scored_and_replaces_only_its_own_rows(
    lodestar: Lodestar,
    dev_project: Path,
    dev_run: str,
    postgres_uri: str,
) -> None:
    from adbc_driver_postgresql import dbapi

    table = ("--output", "postgres://public.scores")
    common = ("batch-inference", "--run-id", dev_run, "--json")
    filed = lodestar(*common, *LAST_DAYS, cwd=dev_project, env=DEV).succeeded()
    for kept in ((), ("--resume",)):  # streamed, and in parts
        lodestar(*common, *LAST_DAYS, *table, *kept, cwd=dev_project, env=DEV).succeeded()
    other = ("--context-params", "start_date=2025-03-01,end_date=2025-03-10")
    lodestar(*common, *other, *table, cwd=dev_project, env=DEV).succeeded()
    with dbapi.connect(postgres_uri) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT session_id, prediction FROM scores WHERE context_params = $1",
            ("end_date=2025-04-01,start_date=2025-03-25",),
        )
        written = cursor.fetch_arrow_table().sort_by("session_id")
        cursor.execute("SELECT count(DISTINCT context_params) FROM scores")
        windows = cursor.fetchone()
    scores = _scores(dev_project, filed.json["outputs"]).select(["session_id", "prediction"])
    assert written.num_rows == filed.json["rows"] > 500
    assert written.cast(scores.schema).equals(scores)
    assert windows == (2,)


def test_a_table_of_predictions_is_judged_by_labels_from_sql(
    lodestar: Lodestar, dev_project: Path, dev_run: str
) -> None:
    table, days = "postgres://public.to_be_judged", LAST_DAYS
    common = ("--run-id", dev_run, "--json", *days)
    done = lodestar("batch-inference", *common, "--output", table, cwd=dev_project, env=DEV)
    rows = done.succeeded().json["rows"]
    labels = ("--labels", "recipes/sql/loaders/user_session_spine.sql", "--segment", "product_id")
    judged = lodestar("monitor", *common, "--data", table, *labels, cwd=dev_project, env=DEV)
    told = judged.succeeded().json["labels"]
    assert told["keys"] == ["user_id", "product_id", "session_id", "event_timestamp"]
    assert (told["coverage"]["labelled"], len(told["parts"])) == (rows, 7)
    assert {"auuc", "qini"} <= set(told["whole"]["metrics"])
    assert "others" in {each["label"] for each in told["segments"]}
    # Of more days only those that were scored have a prediction.
    more = ("monitor", "--run-id", dev_run, "--json", "--data", table, *labels, *ALL)
    told = lodestar(*more, cwd=dev_project, env=DEV).succeeded().json["labels"]
    assert told["counts"]["without_prediction"] > rows


def test_an_artifact_trained_in_local_runs_in_dev_and_says_the_same(
    lodestar: Lodestar, dev_project: Path
) -> None:
    local = lodestar("train", "-r", RECIPE, *SMALL, "--json", cwd=dev_project).succeeded()
    common = ("batch-inference", "--run-id", local.json["run_id"], "--json")
    here = lodestar(*common, "--output", "here.parquet", cwd=dev_project).succeeded()
    there = lodestar(*common, *ALL, "--output", "there.parquet", cwd=dev_project, env=DEV)
    scores = [_scores(dev_project, done.json["outputs"]) for done in (here, there.succeeded())]
    kept = ["session_id", "prediction"]
    assert scores[0].select(kept).equals(scores[1].select(kept))


def test_an_evaluation_finds_the_held_out_rows_again(
    lodestar: Lodestar, dev_project: Path, dev_run: str
) -> None:
    found = lodestar(
        "evaluate", "--run-id", dev_run, *ALL, "--json", cwd=dev_project, env=DEV
    ).succeeded()
    shown = lodestar("runs", "show", dev_run, "--json", cwd=dev_project, env=DEV).succeeded()
    assert found.json["metrics"]["auuc"] == shown.json["metrics"]["auuc"]


def test_a_snapshot_is_drawn_reproducibly_and_hides_what_is_sensitive(
    lodestar: Lodestar, dev_project: Path
) -> None:
    project = dev_project.parent / "snapshots"
    shutil.copytree(dev_project, project)
    path = project / "data" / "snapshots" / f"{RECIPE}.parquet"
    full = pq.read_table(path)
    drawn = []
    for _ in range(2):
        taken = lodestar(
            "snapshot", "-r", RECIPE, *ALL, "--rows", "700", "--json", cwd=project, env=DEV
        ).succeeded()
        drawn.append(path.read_bytes())
    assert (taken.json["rows"], taken.json["of"]) == (700, 20_000)
    assert taken.json["hashed"] == ["country_code"]
    assert drawn[0] == drawn[1]
    sample = pq.read_table(path)
    countries = set(sample["country_code"].to_pylist())
    assert not countries & set(full["country_code"].to_pylist())
    assert 2 < len(countries) <= len(set(full["country_code"].to_pylist()))
    assert pc.all(pc.is_in(sample["session_id"], full["session_id"])).as_py()
    lodestar("train", "-r", RECIPE, *SMALL, cwd=project).succeeded()


def test_what_is_not_declared_is_refused_before_any_row_is_read(
    lodestar: Lodestar, dev_project: Path
) -> None:
    project = dev_project.parent / "misspelt"
    shutil.copytree(dev_project, project)
    recipe = project / "recipes" / f"{RECIPE}.yaml"
    edited(recipe, '"user_demographics"', '"user_demographic"')
    edited(recipe, '["price", "category", "brand"]', '["price", "categori", "brand"]')
    lodestar("train", "-r", RECIPE, *ALL, cwd=project, env=DEV).refused(
        2, "user_demographic'", "did you mean 'user_demographics'", "categori", f"{RECIPE}.yaml:"
    )


def test_a_spine_without_an_entity_s_key_is_refused(lodestar: Lodestar, dev_project: Path) -> None:
    project = dev_project.parent / "keyless"
    shutil.copytree(dev_project, project)
    edited(project / "recipes/sql/loaders/user_session_spine.sql", "    product_id,\n", "")
    edited(project / "recipes" / f"{RECIPE}.yaml", '"product_id", ', "")
    lodestar("train", "-r", RECIPE, *ALL, cwd=project, env=DEV).refused(3, "product_id")


def test_local_has_no_online_store(lodestar: Lodestar, dev_project: Path, dev_run: str) -> None:
    for words in (
        ("features", "materialize"),
        ("parity", "--run-id", dev_run),
        ("snapshot", "-r", RECIPE),
    ):
        lodestar(*words, cwd=dev_project).refused(5, "dev")
