"""Bad recipes, configs, names and rows: one clear error, its exit code, nothing written, no trace."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import SMALL, Finished, Lodestar, copy_of, digests, edited, outbox

HEAD = "model: {class_path: sklearn.linear_model.LogisticRegression}\n"
BOMB = (
    HEAD
    + "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
        for old, new in zip("abcdef", "bcdefg", strict=True)
    )
)


@pytest.fixture(scope="module")
def pristine(sample_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which nothing ever succeeds, so that it stays as it is."""
    return copy_of(sample_project, tmp_path_factory.mktemp("bad") / "project")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("syntax", "model: {class_path: [\n", ["recipes/syntax.yaml:", "not valid YAML"]),
        ("twice", HEAD + "loader: {source_uri: a}\nloader: {source_uri: b}\n", [":3", "'loader'"]),
        ("bomb", BOMB, ["recipes/bomb.yaml:1", "expands to more than"]),
        ("large", HEAD + "# " + "x" * 10_000_000, ["recipes/large.yaml:1", "larger than"]),
        ("tag", "model: !!python/object/apply:os.system ['touch owned']\n", ["tag"]),
        ("binary", "\x00\x01\x02", ["recipes/binary.yaml"]),
        ("empty", "", ["recipes/empty.yaml:1", "is empty"]),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_quickly(
    lodestar: Lodestar, pristine: Path, name: str, text: str, words: list[str]
) -> None:
    path = pristine / "recipes" / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    before = digests(pristine)
    started = time.monotonic()
    lodestar("train", "-r", name, cwd=pristine).refused(2, *words)
    # Under a second on an idle machine; other tests may be running on this one.
    assert time.monotonic() - started < 10
    assert digests(pristine) == before
    path.unlink()


def test_every_problem_of_recipe_and_config_is_told_at_once(
    lodestar: Lodestar, project: Path
) -> None:
    edited(project / "config/base.yaml", "  chunk_rows: ", "  chunk_row: ")
    edited(project / "recipes/wine.yaml", "target_col: cultivar", "target_cl: cultivar")
    edited(project / "recipes/wine.yaml", "task_type: classification", "task_type: clasification")
    edited(project / "recipes/wine.yaml", "  params:\n", "  params:\n    max_categories: lots\n")
    before = digests(project)
    done = lodestar("train", "-r", "wine", "--json", cwd=project).refused(2)
    where = {problem["where"].split(":", 2)[2] for problem in done.json["error"]["problems"]}
    assert {
        "batch.chunk_row",
        "data_interface.target_cl",
        "data_interface.target_col",
        "data_interface.task_type",
        "preprocessor.params.max_categories",
    } <= where
    for problem in done.json["error"]["problems"]:
        file, line, _ = problem["where"].split(":", 2)
        assert (project / file).is_file()
        assert int(line) >= 1
    assert digests(project) == before


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (["data_interface.target_col=nope"], 3, ["'nope'", "target_col", "cultivar"]),
        (
            ["model.class_path=sklearn.ensemble.RandomForestClasifier"],
            2,
            ["RandomForestClassifier"],
        ),
        (["model.class_path=sklearn.nope.Model"], 2, ["no module 'sklearn.nope'"]),
        (["model.class_path=pathlib.Path"], 2, ["no method fit"]),
        (["model.hyperparameters.max_dpth=3"], 2, ["max_dpth", "'max_depth'"]),
        (["model.hyperparameters.max_depth=deep"], 2, ["max_depth", "deep"]),
        (["hyperparameter_tuning.metric=acuracy"], 2, ["acuracy", "'accuracy'"]),
        (["data_interface.task_type=regression"], 3, ["cultivar", "numbers"]),
        (["data_interface.positive_class=nobody"], 3, ["nobody", "cultivar_1"]),
        (["split.method=group", "split.group_col=vineyard"], 3, ["vineyard", "split.group_col"]),
        (["loader.source_uri=data/wines.parquet"], 3, ["wines.parquet", "wine.parquet"]),
        (["loader.source_uri=ftp://host/wine.parquet"], 2, ["'ftp'", "file"]),
        (["config.environment.serving=maybe"], 2, ["environment.serving", "blocked"]),
    ],
)
def test_a_wrong_value_names_its_key_and_what_would_be_right(
    lodestar: Lodestar, pristine: Path, changes: list[str], code: int, words: list[str]
) -> None:
    before = digests(pristine)
    options = [word for change in changes for word in ("--set", change)]
    lodestar("train", "-r", "wine", *SMALL, *options, cwd=pristine).refused(code, *words)
    assert digests(pristine) == before


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("train", "-r", "../../../etc/hostname"), ["outside the project"]),
        (("train", "-r", "/etc/hostname"), ["outside the project"]),
        (("train", "-r", "wine", "--env", "../../etc/x"), ["is no environment name"]),
        (("train", "-r", "wine", "--env", "prodd"), ["config/prodd.yaml", "local"]),
        (("train", "-r", "vine"), ["no recipe 'vine'", "'wine'"]),
        (("verify", "--run-id", "../../../etc/passwd"), ["is no run id"]),
    ],
)
def test_a_name_never_leads_out_of_the_project(
    lodestar: Lodestar, pristine: Path, args: tuple[str, ...], words: list[str]
) -> None:
    before = digests(pristine)
    lodestar(*args, cwd=pristine).refused(2, *words)
    assert digests(pristine) == before


def test_a_link_out_of_the_project_is_no_recipe(
    lodestar: Lodestar, pristine: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text(HEAD, encoding="utf-8")
    link = pristine / "recipes/linked.yaml"
    link.symlink_to(outside)
    lodestar("train", "-r", "linked", cwd=pristine).refused(2, "outside the project")
    link.unlink()


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "MLFLOW_PLACE is not set"), ("", "MLFLOW_PLACE is empty")],
)
def test_a_variable_that_is_missing_or_empty_is_named(
    lodestar: Lodestar, project: Path, value: str | None, words: str
) -> None:
    base = project / "config/base.yaml"
    edited(base, "artifact_root: mlruns/artifacts", "artifact_root: ${MLFLOW_PLACE}")
    before = digests(project)
    env = {} if value is None else {"MLFLOW_PLACE": value}
    done = lodestar("train", "-r", "wine", cwd=project, env=env)
    done.refused(2, words, "config/base.yaml:", "mlflow.artifact_root")
    assert digests(project) == before


@pytest.mark.parametrize("value", ["0012345", "1e5", "true", "null", "a b%25@c"])
def test_a_variables_text_stays_text(lodestar: Lodestar, project: Path, value: str) -> None:
    (project / "config/lab.yaml").write_text(
        "mlflow: {experiment_name: '${EXPERIMENT}'}\nbatch: {chunk_rows: '${ROWS:1e5}'}\n"
        "data: {snapshots: '${PLACE}'}\n",
        encoding="utf-8",
    )
    # The number's field takes no text; the two text fields take these as they are.
    done = lodestar(
        *("check", "-r", "wine", "--env", "lab", "--json"),
        cwd=project,
        env={"EXPERIMENT": value, "PLACE": value, "ROWS": "12"},
    )
    assert done.succeeded().json["errors"] == {}
    lodestar(
        *("check", "-r", "wine", "--env", "lab"),
        cwd=project,
        env={"EXPERIMENT": value, "PLACE": value, "ROWS": "many"},
    ).refused(2, "batch.chunk_rows")


@pytest.mark.parametrize(
    ("sql", "code", "words"),
    [
        ("DROP TABLE breast_cancer", 2, "must"),
        ("SELECT 1; DELETE FROM breast_cancer", 2, "one SELECT"),
        ("COPY breast_cancer TO 'owned.csv'", 2, "must"),
        ("SELECT * FROM read_csv('/etc/passwd')", 3, "SQL"),
        ("SELECT * FROM breast_cancer, '/etc/passwd'", 3, "no table name"),
        ("SELEC * FROM breast_cancer", 2, "SQL"),
        ("SELECT nothing FROM breast_cancer", 3, "nothing"),
        ("SELECT * FROM breast_cancr", 3, "'breast_cancer'"),
        ("", 2, "empty"),
    ],
)
def test_sql_that_does_more_than_read_its_tables_is_refused(
    lodestar: Lodestar, project: Path, sql: str, code: int, words: str
) -> None:
    (project / "recipes/sql/loaders/breast_cancer.sql").write_text(sql, encoding="utf-8")
    before = digests(project)
    done = lodestar("train", "-r", "breast_cancer", *SMALL, cwd=project)
    done.refused(code, words)
    assert "root:" not in done.stderr
    assert digests(project) == before


def test_a_column_called_update_is_still_fine(lodestar: Lodestar, project: Path) -> None:
    sql = "SELECT *, mean_radius AS last_update FROM breast_cancer"
    (project / "recipes/sql/loaders/breast_cancer.sql").write_text(sql, encoding="utf-8")
    done = lodestar("check", "-r", "breast_cancer", "--json", cwd=project).succeeded()
    assert done.json["recipes"][0]["features"] == 31


def test_the_allow_list_is_asked_before_anything_is_imported(
    lodestar: Lodestar, project: Path
) -> None:
    (project / "config/prod.yaml").write_text(
        "model: {allowed_modules: [sklearn]}\n", encoding="utf-8"
    )
    (project / "evil.py").write_text("open('owned', 'w').close()\nclass Model: ...\n")
    (project / "sklearnish.py").write_text("open('owned', 'w').close()\nclass Model: ...\n")
    train = ("train", "-r", "wine", "--env", "prod")
    for class_path in ("evil.Model", "sklearnish.Model"):
        change = ("--set", f"model.class_path={class_path}")
        done = lodestar(*train, *change, cwd=project)
        done.refused(2, "may not be imported", "model.allowed_modules")
    preprocessor = ("--set", "preprocessor={class_path: evil.Model}")
    lodestar(*train, *preprocessor, cwd=project).refused(2, "may not be imported")
    assert not (project / "owned").exists()
    # The injector works: without the list, the module is imported.
    lodestar("train", "-r", "wine", "--set", "model.class_path=evil.Model", cwd=project).refused(2)
    assert (project / "owned").exists()


ROWS = 60


def rows(**changed: object) -> pa.Table:
    draw = np.random.default_rng(3)
    columns: dict[str, object] = {
        "key": [f"k{number}" for number in range(ROWS)],
        "size": draw.normal(size=ROWS),
        "kind": ["a", "b", "c"] * (ROWS // 3),
        "answer": ["yes", "no"] * (ROWS // 2),
    }
    return pa.table(columns | changed)


RECIPE = """\
model: {class_path: sklearn.linear_model.LogisticRegression}
loader: {source_uri: data/rows.parquet}
preprocessor: {name: simple_scaler, params: {exclude_cols: [key]}}
data_interface: {task_type: classification, target_col: answer, entity_keys: [key]}
"""


@pytest.fixture(scope="module")
def rowed(lodestar: Lodestar, pristine: Path) -> "tuple[Path, str]":
    """A project with a run over `rows()`."""
    project = lodestar.stocked(copy_of(pristine, pristine.parent / "rowed"))
    (project / "recipes/rows.yaml").write_text(RECIPE, encoding="utf-8")
    pq.write_table(rows(), project / "data/rows.parquet")
    done = lodestar("train", "-r", "rows", "--json", cwd=project).succeeded()
    return project, str(done.json["run_id"])


@pytest.mark.parametrize(
    ("name", "table", "words"),
    [
        ("no rows", rows().slice(0, 0), ["no rows"]),
        ("one row", rows().slice(0, 1), ["class"]),
        ("one class", rows(answer=["yes"] * ROWS), ["answer", "1 class"]),
        ("no answer", rows(answer=[None] + ["yes", "no"] * 29 + ["no"]), ["answer", "null"]),
        ("nothing in it", rows(size=pa.nulls(ROWS, pa.float64())), ["size", "no value"]),
        ("infinite", rows(size=[np.inf] + [0.5] * (ROWS - 1)), ["size", "infinite", "row 0"]),
        ("lists", rows(size=[[1.0]] * ROWS), ["size", "list"]),
        ("no number", rows(size=pa.array([2**64 - 1] * ROWS, pa.uint64())), ["not fit"]),
        ("twice", rows().append_column("size", pa.array([1.0] * ROWS)), ["'size'", "twice"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_that_cannot_be_learned_from(
    lodestar: Lodestar, rowed: "tuple[Path, str]", name: str, table: pa.Table, words: list[str]
) -> None:
    project, _ = rowed
    file = f"data/{name.replace(' ', '_')}.parquet"
    pq.write_table(table, project / file)
    before = digests(project)
    lodestar(*("train", "-r", "rows", "--set", f"loader.source_uri={file}"), cwd=project).refused(
        3, *words
    )
    assert digests(project) == before


def test_values_that_overflow_are_the_librarys_own_words(
    lodestar: Lodestar, rowed: "tuple[Path, str]"
) -> None:
    project, _ = rowed
    table = rows(size=[1e308] * ROWS)
    pq.write_table(table, project / "data/large.parquet")
    lodestar(
        *("train", "-r", "rows", "--set", "loader.source_uri=data/large.parquet"),
        *("--set", "model.class_path=sklearn.ensemble.RandomForestClassifier"),
        cwd=project,
    ).refused(3, "RandomForestClassifier refuses", "infinity")


@pytest.mark.parametrize("damage", ["cut", "flipped", "junk"])
def test_a_damaged_file_is_a_data_error(
    lodestar: Lodestar, rowed: "tuple[Path, str]", damage: str
) -> None:
    project, _ = rowed
    whole = bytearray((project / "data/wine.parquet").read_bytes())
    if damage == "cut":
        whole = whole[: len(whole) // 2]
    elif damage == "flipped":
        for place in range(1500, 4000, 100):
            whole[place] ^= 0xFF
    else:
        whole = bytearray(b"not a parquet file")
    (project / f"data/{damage}.parquet").write_bytes(whole)
    lodestar(
        *("train", "-r", "wine", *SMALL, "--set", f"loader.source_uri=data/{damage}.parquet"),
        cwd=project,
    ).refused(3, f"{damage}.parquet")


def scored(
    lodestar: Lodestar, rowed: "tuple[Path, str]", table: pa.Table, output: Path
) -> "tuple[Finished, pd.DataFrame]":
    """Put the table in the loader's place and score it."""
    project, run_id = rowed
    original = (project / "data/rows.parquet").read_bytes()
    pq.write_table(table, project / "data/rows.parquet")
    try:
        done = lodestar(
            *("batch-inference", "--run-id", run_id, "--output", output, "--json"), cwd=project
        )
    finally:
        (project / "data/rows.parquet").write_bytes(original)
    return done, (pq.read_table(output).to_pandas() if done.code == 0 else pd.DataFrame())


@pytest.mark.parametrize(
    ("name", "table", "words"),
    [
        ("gone", rows().drop_columns(["size"]), ["size"]),
        ("new", rows(**{"extra\nerror: forged": [1] * ROWS}), ["+ 'extra\\nerror: forged'"]),
        ("another type", rows(size=["large"] * ROWS), ["size", "string", "float"]),
        ("null", rows(size=[None] + [0.5] * (ROWS - 1)), ["size", "null", "row 0"]),
        ("infinite late", rows(size=[0.5] * (ROWS - 1) + [-np.inf]), ["size", "row 59"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_drift_is_refused_before_anything_is_written(
    lodestar: Lodestar,
    rowed: "tuple[Path, str]",
    tmp_path: Path,
    name: str,
    table: pa.Table,
    words: list[str],
) -> None:
    del name
    done, _ = scored(lodestar, rowed, table, outbox(rowed[0], tmp_path) / "out.parquet")
    done.refused(3, *words)
    assert list(outbox(rowed[0], tmp_path).iterdir()) == []


def test_new_order_unknown_categories_and_doubled_keys_are_scored(
    lodestar: Lodestar, rowed: "tuple[Path, str]", tmp_path: Path
) -> None:
    out = outbox(rowed[0], tmp_path)
    _, plain = scored(lodestar, rowed, rows(), out / "plain.parquet")
    names = ["answer", "kind", "size", "key"]
    shuffled = rows().select(names)
    done, reordered = scored(lodestar, rowed, shuffled, out / "reordered.parquet")
    done.succeeded()
    pd.testing.assert_frame_equal(reordered[list(plain.columns)], plain)

    doubled = pa.concat_tables([rows(), rows()])
    _, twice = scored(lodestar, rowed, doubled, out / "twice.parquet")
    assert list(twice["key"]) == [*plain["key"], *plain["key"]]
    assert list(twice["prediction"]) == [*plain["prediction"], *plain["prediction"]]

    unknown = rows(kind=["a", "zz"] * (ROWS // 2))
    done, frame = scored(lodestar, rowed, unknown, out / "unknown.parquet")
    assert done.json["unknown_categories"] == {"kind": ROWS // 2}
    assert len(frame) == ROWS


def test_column_names_cannot_write_to_the_terminal(
    lodestar: Lodestar, rowed: "tuple[Path, str]"
) -> None:
    project, _ = rowed
    name = "\x1b[31mred\x1b[0m[bold]\r\nerror: forged"
    hostile = rows().append_column(name, pa.array([1.0, 0.0] * (ROWS // 2)))
    pq.write_table(hostile, project / "data/hostile.parquet")
    pq.write_table(
        hostile.append_column(name + "2", [[[1]] * ROWS]), project / "data/hostile2.parquet"
    )
    train = ("train", "-r", "rows", "--set")
    # In a note: the column predicts the answer almost alone.
    noted = lodestar(*train, "loader.source_uri=data/hostile.parquet", cwd=project).succeeded()
    assert "red" in noted.stderr
    refused = lodestar(*train, "loader.source_uri=data/hostile2.parquet", cwd=project).refused(3)
    for done in (noted, refused):
        assert "\x1b" not in done.stderr
        assert "\r" not in done.stderr
        assert "\nerror: forged" not in done.stderr
    assert "\\x1b[31m" in refused.stderr
