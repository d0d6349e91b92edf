import hashlib
import os
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow.parquet as pq
import pytest
import sqlglot
from ruamel.yaml import YAML
from sqlglot import exp

from lodestar.errors import ExternalError, UsageError
from lodestar.samples.bundled import export_bundled, write_parquet
from lodestar.samples.project import create_project, write_sample_data
from lodestar.settings.recipe import HyperparameterRange, Recipe

REPOSITORY = Path(__file__).parents[2]
RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))
SECOND_DISK = Path("/dev/shm")  # noqa: S108 -- a mount of its own is what the test needs
# Of the first YAML block of the blueprint's section 2.2.
BLUEPRINT_RECIPE = "d85b9b806451907d9f51450543c41e71870b126e95789bb2f1380a712217fbbf"
SHAPES = {
    "breast_cancer": (569, 32, "sample_id", "diagnosis"),
    "digits": (1797, 66, "image_id", "digit"),
    "wine": (178, 15, "sample_id", "cultivar"),
    "diabetes": (442, 12, "patient_id", "progression"),
}


def snapshot_of(root: Path) -> dict[str, str]:
    """Every name below `root`, and what it holds."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in root.rglob("*")
    }


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundled")
    export_bundled(root)
    return root


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("projects") / "not" / "there" / "yet"
    create_project(root)
    return root


@pytest.mark.parametrize("name", SHAPES)
def test_a_bundled_table_has_its_rows_clean_names_an_id_first_and_its_target_last(
    bundled: Path, name: str
) -> None:
    rows, columns, key, target = SHAPES[name]
    table = pq.read_table(bundled / f"{name}.parquet")
    assert (table.num_rows, table.num_columns) == (rows, columns)
    assert (table.column_names[0], table.column_names[-1]) == (key, target)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", n) for n in table.column_names)
    assert len(table[key].unique()) == rows
    assert all(column.null_count == 0 for column in table.columns)


def test_bundled_values_are_the_originals(bundled: Path) -> None:
    cancer = pd.read_parquet(bundled / "breast_cancer.parquet")
    assert cancer["diagnosis"].value_counts().to_dict() == {"benign": 357, "malignant": 212}
    first = cancer.to_dict("records")[0]
    assert (first["sample_id"], first["mean_radius"]) == ("bc-0001", 17.99)
    assert first["diagnosis"] == "malignant"
    assert set(pd.read_parquet(bundled / "digits.parquet")["digit"]) == set(range(10))
    wine = pd.read_parquet(bundled / "wine.parquet")["cultivar"]
    assert wine.value_counts().to_dict() == {"cultivar_1": 59, "cultivar_2": 71, "cultivar_3": 48}
    diabetes = pd.read_parquet(bundled / "diabetes.parquet")
    assert (diabetes["age"].min(), diabetes["age"].max()) == (19, 79)  # years, not deviations
    assert (diabetes["progression"].min(), diabetes["progression"].max()) == (25.0, 346.0)


def test_bundled_tables_are_written_again_byte_by_byte_and_leave_nothing_else(
    bundled: Path, tmp_path: Path
) -> None:
    export_bundled(tmp_path)
    export_bundled(tmp_path)
    assert snapshot_of(tmp_path) == snapshot_of(bundled)
    assert set(snapshot_of(tmp_path)) == {f"{name}.parquet" for name in SHAPES}


def test_a_write_that_fails_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    table = pq.read_table(export_bundled(tmp_path / "data")[0])
    blocked = tmp_path / "table.parquet"
    (blocked / "in the way").mkdir(parents=True)
    before = snapshot_of(tmp_path)
    with pytest.raises(ExternalError, match=r"cannot write") as caught:
        write_parquet(table, blocked)
    assert caught.value.where == str(blocked)
    assert snapshot_of(tmp_path) == before


def test_the_package_carries_the_repository_s_own_config_and_recipes_byte_by_byte() -> None:
    carried = Path(str(files("lodestar.samples") / "project"))
    for folder in ("config", "features", "recipes"):
        assert snapshot_of(carried / folder) == {
            name: content
            for name, content in snapshot_of(REPOSITORY / folder).items()
            if folder != "config" or name in {"base.yaml", "dev.yaml"}
        }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_sample_recipe_is_valid_and_its_loader_has_the_columns_it_names(
    path: Path, project: Path
) -> None:
    recipe = Recipe.model_validate(YAML(typ="safe").load(path.read_text("utf-8")))
    source = recipe.loader.source_uri
    interface = recipe.data_interface
    if source.endswith(".sql"):
        select = sqlglot.parse_one((project / source).read_text("utf-8"), dialect="postgres")
        assert isinstance(select, exp.Select)
        table = select.find(exp.Table)
        assert table is not None
        source = f"data/{table.name}.parquet"
        named = set(select.named_selects) - {"*"}
    else:
        named = set()
    columns = set(pq.read_schema(project / source).names)
    assert named <= columns
    assert {interface.target_col, *interface.entity_keys} <= (named or columns)


def test_the_recipes_of_the_sample_project_are_these() -> None:
    assert [path.stem for path in RECIPES] == [
        "breast_cancer",
        "diabetes",
        "digits",
        "uplift_model_exp3",
        "wine",
    ]


def test_a_range_with_a_default_is_shown() -> None:
    recipe = YAML(typ="safe").load((REPOSITORY / "recipes/diabetes.yaml").read_text("utf-8"))
    rate = Recipe.model_validate(recipe).model.hyperparameters["learning_rate"]
    assert isinstance(rate, HyperparameterRange)
    assert rate.default == 0.05


def test_the_uplift_recipe_is_the_blueprint_s_word_for_word() -> None:
    recipe = (REPOSITORY / "recipes/uplift_model_exp3.yaml").read_bytes()
    assert hashlib.sha256(recipe).hexdigest() == BLUEPRINT_RECIPE


def test_the_uplift_recipe_asks_for_the_columns_of_its_snapshot(project: Path) -> None:
    text = (REPOSITORY / "recipes/uplift_model_exp3.yaml").read_text("utf-8")
    recipe = Recipe.model_validate(YAML(typ="safe").load(text))
    asked = {choice.name for view in recipe.augmenter.features for choice in view.features}
    snapshot = pq.read_schema(project / "data/snapshots/uplift_model_exp3.parquet").names
    spine = pq.read_schema(project / "data/sessions.parquet").names
    assert snapshot[:6] == spine
    assert set(snapshot[6:]) == asked
    for view in recipe.augmenter.features:
        stored = pq.read_schema(project / f"data/{view.feature_namespace}.parquet").names
        names = {choice.name for choice in view.features}
        assert {*names, "event_timestamp", "created_timestamp"} <= set(stored)


def test_a_new_project_has_config_recipes_sql_and_data_and_the_list_is_complete(
    project: Path,
) -> None:
    written = {name for name, content in snapshot_of(project).items() if content != "folder"}
    assert {".gitignore", "README.md", "config/base.yaml", "recipes/wine.yaml"} <= written
    assert {"recipes/sql/loaders/user_session_spine.sql", "data/sessions.parquet"} <= written
    assert {f"data/{name}.parquet" for name in SHAPES} <= written
    assert "data/" in (project / ".gitignore").read_text("utf-8").splitlines()
    assert [p.name for p in project.parent.iterdir()] == [project.name]


def test_a_project_is_made_beside_files_of_others_and_returns_what_it_wrote(
    tmp_path: Path,
) -> None:
    (tmp_path / "notes.txt").write_text("mine", "utf-8")
    (tmp_path / "config").mkdir()
    written = create_project(tmp_path)
    found = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert set(written) == found - {tmp_path / "notes.txt"}
    assert (tmp_path / "notes.txt").read_text("utf-8") == "mine"


@pytest.mark.parametrize("taken", ["README.md", "recipes/wine.yaml", "data/wine.parquet", "config"])
def test_a_file_in_the_way_is_named_and_nothing_is_written(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine", "utf-8")
    before = snapshot_of(tmp_path)
    with pytest.raises(UsageError, match=re.escape(taken)):
        create_project(tmp_path)
    assert snapshot_of(tmp_path) == before


def test_a_link_to_nowhere_is_in_the_way_as_well(tmp_path: Path) -> None:
    (tmp_path / "README.md").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"README\.md"):
        create_project(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]


def test_a_project_cannot_be_made_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", "utf-8")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="file"):
            create_project(target)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is a POSIX limit")
def test_a_project_that_runs_out_of_space_leaves_nothing_behind(tmp_path: Path) -> None:
    limited = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from lodestar.errors import ExternalError\n"
        "from lodestar.samples.project import create_project\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    create_project(Path(sys.argv[1]))\n"
        "except ExternalError as error:\n"
        "    sys.exit(error.exit_code)\n"
    )
    (tmp_path / "here").mkdir()
    for target in (tmp_path / "here", tmp_path / "new" / "project"):
        command = [sys.executable, "-c", limited, str(target)]
        done = subprocess.run(command, check=False, env={**os.environ, "MKL_NUM_THREADS": "1"})
        assert done.returncode == ExternalError.exit_code
    assert snapshot_of(tmp_path) == {"here": "folder"}


@pytest.mark.skipif(not SECOND_DISK.is_dir(), reason="needs a second file system")
def test_a_project_whose_files_cannot_all_be_moved_is_taken_back(tmp_path: Path) -> None:
    with TemporaryDirectory(dir=SECOND_DISK) as elsewhere:
        if Path(elsewhere).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("the temporary directory is on /dev/shm itself")
        (tmp_path / "data").symlink_to(elsewhere)
        (tmp_path / "notes.txt").write_text("mine", "utf-8")
        with pytest.raises(ExternalError, match="cross-device"):
            create_project(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"data", "notes.txt"}
        assert not any(Path(elsewhere).iterdir())


def test_sample_data_is_the_bundled_tables_and_the_shop_and_the_same_again(
    project: Path, tmp_path: Path
) -> None:
    written = write_sample_data(tmp_path)
    assert len(written) == 4 + 9
    assert snapshot_of(tmp_path) == snapshot_of(project / "data")


def test_importing_the_project_maker_loads_nothing_heavy() -> None:
    code = (
        "import sys, lodestar.samples.project\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'sklearn', 'duckdb'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
