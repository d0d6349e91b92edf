"""evaluate, verify, check, schema, runs and init, each as a user runs it."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.conftest import SMALL, Lodestar, Trained, digests, edited
from tests.served_projects import write_served_config


@pytest.mark.parametrize("recipe", ["breast_cancer", "diabetes"])
def test_evaluate_finds_the_held_out_rows_again_and_gives_the_metrics_of_training_exactly(
    lodestar: Lodestar, trained: Callable[..., Trained], recipe: str
) -> None:
    run = trained(recipe)
    done = lodestar("evaluate", "--run-id", run.run_id, "--json", cwd=run.project).succeeded()
    assert done.json["metrics"] == run.json["metrics"]
    assert done.json["trained_metrics"] == run.json["metrics"]
    assert done.json["rows"] == run.json["rows"]["test"]
    assert "held-out" in done.json["data"]


def test_evaluate_takes_other_labelled_data(
    lodestar: Lodestar, trained: Callable[..., Trained], tmp_path: Path
) -> None:
    run = trained("wine", *SMALL)
    table = pq.read_table(run.project / "data/wine.parquet")
    some, unlabelled = tmp_path / "some.parquet", tmp_path / "unlabelled.parquet"
    pq.write_table(table.slice(0, 150), some)
    pq.write_table(table.drop_columns(["cultivar"]), unlabelled)
    evaluate = ("evaluate", "--run-id", run.run_id, "--data")
    done = lodestar(*evaluate, some, "--json", cwd=run.project).succeeded()
    assert done.json["rows"] == 150
    assert "held-out" not in done.json["data"]
    lodestar(*evaluate, unlabelled, cwd=run.project).refused(3, "cultivar")
    lodestar(*evaluate, tmp_path / "no.parquet", cwd=run.project).refused(3, "no.parquet")


def test_what_an_evaluation_found_is_kept_with_the_run(
    lodestar: Lodestar, trained: Callable[..., Trained]
) -> None:
    run = trained("wine")
    lodestar("evaluate", "--run-id", run.run_id, cwd=run.project).succeeded()
    shown = lodestar("runs", "show", run.run_id, "--json", cwd=run.project).succeeded()
    assert shown.json["metrics"]["evaluate.accuracy"] == run.json["metrics"]["accuracy"]


def test_verify_checks_files_lock_and_probe(
    lodestar: Lodestar, trained: Callable[..., Trained]
) -> None:
    run = trained("wine", *SMALL)
    done = lodestar("verify", "--run-id", run.run_id, "--json", cwd=run.project).succeeded()
    assert done.json["verified"] is True
    assert done.json["digest"] == run.json["artifact_digest"]
    assert done.json["files"] == len(digests(run.artifact))
    assert done.json["probe_rows"] == 5
    assert done.json["warnings"] == []


def test_runs_are_listed_shown_and_compared(
    lodestar: Lodestar, trained: Callable[..., Trained]
) -> None:
    small, large = trained("wine", *SMALL), trained("wine")
    project = small.project
    command = ("runs", "list", "--most", "1000")  # the suite's others are newer perhaps
    listed = lodestar(*command, "--json", cwd=project).succeeded().json["runs"]
    assert {small.run_id, large.run_id} <= {run["run_id"] for run in listed}
    assert {run["status"] for run in listed} == {"FINISHED"}
    started = [run["started"] for run in listed]
    assert started == sorted(started, reverse=True)

    compared = lodestar("runs", "compare", small.run_id, large.run_id, "--json", cwd=project)
    assert compared.succeeded().json["params"] == {"model.n_estimators": ["5", "200"]}
    loss = compared.json["metrics"]["log_loss"]
    assert loss["difference"] == loss["second"] - loss["first"] != 0

    people = lodestar(*command, cwd=project).succeeded()
    assert small.run_id[:8] in people.stderr
    assert people.stdout == ""


def test_check_reads_every_recipe_and_trains_none(lodestar: Lodestar, project: Path) -> None:
    before = digests(project)
    done = lodestar("check", "--json", cwd=project).succeeded()
    found = {item["recipe"]: item for item in done.json["recipes"]}
    assert set(found) == {"breast_cancer", "diabetes", "digits", "uplift_model_exp3", "wine"}
    assert found["breast_cancer"]["features"] == 30
    assert digests(project) == before


def test_check_tells_which_recipe_is_wrong_and_exits_so(lodestar: Lodestar, project: Path) -> None:
    edited(project / "recipes/wine.yaml", "target_col: cultivar", "target_col: cultivare")
    done = lodestar("check", "--json", cwd=project)
    assert done.code == 3, done.stderr
    assert set(done.json["errors"]) == {"wine"}
    assert len(done.json["recipes"]) == 4
    lodestar("check", "-r", "wine", cwd=project).refused(3, "cultivare", "'cultivar'")


@pytest.mark.parametrize("which", ["recipe", "config"])
def test_the_json_schema_is_one_object_for_editors(
    lodestar: Lodestar, tmp_path: Path, which: str
) -> None:
    schema = lodestar("schema", which, cwd=tmp_path).succeeded().json
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert ("model" in schema["properties"]) is True
    assert ("data_interface" in schema["properties"]) is (which == "recipe")


def test_an_unknown_schema_names_the_known_ones(lodestar: Lodestar, tmp_path: Path) -> None:
    lodestar("schema", "recip", cwd=tmp_path).refused(2, "'recipe'")


def test_init_makes_a_project_that_trains_at_once_without_a_network(
    lodestar: Lodestar, tmp_path: Path, offline: tuple[str, ...]
) -> None:
    done = lodestar("init", "mine", "--json", cwd=tmp_path).succeeded()
    assert done.json["directory"] == "mine"
    project = tmp_path / "mine"
    assert (project / "recipes/breast_cancer.yaml").is_file()
    run = lodestar(
        *("train", "-r", "breast_cancer", *SMALL, "--json"), cwd=project, under=offline
    ).succeeded()
    assert (project / run.json["report"]).is_file()
    assert "mlflow" not in run.stderr  # which tells of its tables when it makes them
    before = digests(project)
    again = lodestar("init", "mine", cwd=tmp_path).refused(2, "these exist: README.md, ", " more\n")
    assert "recipes/wine.yaml" not in again.stderr
    assert digests(project) == before


@pytest.fixture
def offline() -> tuple[str, ...]:
    """Starts a command in a network namespace of its own, which has no way out."""
    probe = ("unshare", "--net", "--map-root-user")
    try:
        subprocess.run([*probe, "true"], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine lets nobody make a network namespace: {error}")
    return probe


def test_outside_a_project_the_hint_is_init(lodestar: Lodestar, tmp_path: Path) -> None:
    done = lodestar("train", "-r", "wine", "--json", cwd=tmp_path)
    done.refused(2, "no Lodestar project here", "lodestar init")
    assert done.json["error"]["exit_code"] == 2
    assert list(tmp_path.iterdir()) == []


def test_serving_is_refused_where_the_environment_blocks_it(
    lodestar: Lodestar, trained: Callable[..., Trained]
) -> None:
    run = trained("wine", *SMALL)
    lodestar("serve-api", "--run-id", run.run_id, cwd=run.project).refused(
        5, "serving is blocked", "batch-inference"
    )


@pytest.mark.parametrize(
    ("environment", "code", "words"),
    [
        ("local", 5, ("serving is blocked", "batch-inference")),
        ("served", 2, ("msgspec is not installed", "pip install 'lodestar-ml[serving]'")),
    ],
)
def test_serving_without_its_extra_is_refused_in_words(
    project: Path, environment: str, code: int, words: tuple[str, ...]
) -> None:
    write_served_config(project, "served")
    without = (
        "import sys\n"
        "sys.modules['msgspec'] = None\n"
        f"sys.argv = ['lodestar', 'serve-api', '--run-id', 'abcd', '--env', '{environment}']\n"
        "from lodestar.cli.app import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", without]
    done = subprocess.run(
        command, cwd=project, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stderr
    assert all(word in done.stderr for word in words)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "group", [(), ("runs",), ("features",), ("infra",), ("deploy",), ("alerts",)]
)
def test_help_says_what_each_command_does_without_cutting_it_off(
    lodestar: Lodestar, tmp_path: Path, group: tuple[str, ...]
) -> None:
    done = lodestar(*group, "--help", cwd=tmp_path).succeeded()
    (_, listed) = done.stdout.split("Commands:\n")
    assert "..." not in listed


def test_the_version_is_that_of_the_package(lodestar: Lodestar, tmp_path: Path) -> None:
    done = lodestar("--version", cwd=tmp_path).succeeded()
    assert done.stdout == f"lodestar {version('lodestar-ml')}\n"


def test_without_a_recipe_the_error_says_which_there_are_and_what_to_type(
    lodestar: Lodestar, project: Path
) -> None:
    for command in ("train", "snapshot"):
        lodestar(command, cwd=project).refused(2, "no recipe is named", "breast_cancer", "wine")
    others = [path for path in (project / "recipes").glob("*.yaml") if path.stem != "wine"]
    for path in others:
        path.unlink()
    lodestar("train", cwd=project).refused(2, "no recipe is named", "there is one: -r wine")
    (project / "recipes/wine.yaml").unlink()
    lodestar("train", cwd=project).refused(2, "there is none in recipes/")


def test_a_value_that_the_estimator_refuses_is_told_with_its_line(
    lodestar: Lodestar, project: Path
) -> None:
    recipe = project / "recipes/breast_cancer.yaml"

    def line(words: str) -> int:
        (found,) = [
            number
            for number, text in enumerate(recipe.read_text(encoding="utf-8").splitlines(), start=1)
            if words in text
        ]
        return found

    place = "recipes/breast_cancer.yaml:{}:model.hyperparameters"
    train = ("train", "-r", "breast_cancer")
    edited(recipe, "    subsample: 0.8", "    subsample: 7")
    said = place.format(line("subsample:")) + ".subsample: XGBClassifier refuses"
    lodestar(*train, cwd=project).refused(2, said, "7")
    searched = ("--set", "config.hyperparameter_tuning.enabled=true")
    lodestar(*train, *searched, cwd=project).refused(3, "the first: " + said)
    # The library's words name no hyperparameter here.
    edited(recipe, "    subsample: 7", "    sampling_method: uniform")
    edited(recipe, "n_estimators: {type: int, low: 50, high: 400, default: 200}", "n_estimators: x")
    said = place.format(line("  hyperparameters:")) + ": XGBClassifier refuses: 'str' object"
    lodestar(*train, cwd=project).refused(2, said)


def test_an_error_with_json_is_one_object_too(lodestar: Lodestar, project: Path) -> None:
    edited(project / "recipes/wine.yaml", "  min_samples_leaf: 2", "  min_sample_leaf: 2")
    done = lodestar("train", "-r", "wine", "--json", cwd=project).refused(2)
    (problem,) = done.json["error"]["problems"]
    line = 1 + (project / "recipes/wine.yaml").read_text(encoding="utf-8").splitlines().index(
        "    min_sample_leaf: 2"
    )
    assert problem["where"] == f"recipes/wine.yaml:{line}:model.hyperparameters.min_sample_leaf"
    assert "min_samples_leaf" in problem["hint"]
    assert json.dumps(problem["what"]) in done.stdout
