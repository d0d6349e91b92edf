"""`promote` and `rollback`: aliases are where they were put, and their history is kept."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from tests.conftest import SMALL, Lodestar, Trained, ended
from tests.tracking import MLFLOWS_WARNINGS, remote_project, saved_copy, store_of

from lodestar.artifact.aliases import Holder
from lodestar.artifact.contract import Contract
from lodestar.errors import ArtifactError, UsageError
from lodestar.infra.mlflow_server import MlflowServer
from lodestar.interface.progress import Silent
from lodestar.pipelines.promotion import Promotion, promote, rollback
from lodestar.settings.loading import Environment, load_config

pytestmark = MLFLOWS_WARNINGS


@pytest.fixture
def local(lodestar: Lodestar, new_project: Path) -> Environment:
    return load_config(lodestar.stocked(new_project), "local", variables={})


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.faults)])
def environment(
    request: pytest.FixtureRequest, sample_project: Path, tmp_path: Path
) -> Iterator[Environment]:
    """A project with a store of its own: a file, or on a server, where each test uploads for long."""
    if request.param == "sqlite":
        yield request.getfixturevalue("local")
        return
    server: MlflowServer = request.getfixturevalue("mlflow_server")
    with remote_project(sample_project, tmp_path / "remote", server) as project:
        yield project.environment


@pytest.fixture
def artifact(trained: Callable[..., Trained]) -> Path:
    return trained("wine", *SMALL).artifact


def runs(environment: Environment, artifact: Path, count: int) -> list[str]:
    return [saved_copy(environment, artifact, f"run {n}").run_id for n in range(count)]


def promoted(environment: Environment, run: str, alias: str = "champion") -> Promotion:
    return promote(environment, run, alias, force=False, tell=Silent())


def promoted_in_turn(environment: Environment, *runs: str) -> str:
    """Promote all of them; the name of their registered model."""
    (model,) = {promoted(environment, run).now.model for run in runs}
    return model


def client_of(environment: Environment) -> MlflowClient:
    uri = environment.config.mlflow.tracking_uri.get_secret_value()
    uri = uri.replace("sqlite:///", f"sqlite:///{environment.project}/")
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def holder(environment: Environment, alias: str = "champion") -> str:
    return store_of(environment).find(alias).run_id


def test_an_alias_names_a_run_everywhere(environment: Environment, artifact: Path) -> None:
    first, second = runs(environment, artifact, 2)
    done = promoted(environment, first[:8])
    assert done.changed
    assert done.before is None
    assert done.now == Holder(done.now.model, "wine", "champion", "1", first)
    for reference in ("champion", "wine@champion"):
        with store_of(environment).opened(reference) as opened:
            assert opened.run_id == first
    promoted(environment, second, "challenger")
    shown = {run.run_id: run.aliases for run in store_of(environment).runs(most=5)}
    assert shown == {first: ("champion",), second: ("challenger",)}
    assert store_of(environment).find(first[:8]).aliases == ("champion",)


def test_a_run_is_registered_once_however_often_it_is_promoted(
    environment: Environment, artifact: Path
) -> None:
    (run,) = runs(environment, artifact, 1)
    promoted(environment, run)
    again = promoted(environment, run)
    other = promoted(environment, run, "stable")
    assert not again.changed
    assert {again.now.version, other.now.version} == {"1"}
    versions = client_of(environment).search_model_versions(f"name = '{again.now.model}'")
    assert [version.run_id for version in versions] == [run]


def test_rollback_goes_back_step_by_step_and_says_who_it_was(
    environment: Environment, artifact: Path
) -> None:
    one, two, three = runs(environment, artifact, 3)
    for run in (one, two, one, three):
        promoted(environment, run)
    seen = []
    for _ in range(3):
        done = rollback(environment, "champion", None)
        assert done.before is not None
        assert holder(environment) == done.now.run_id
        seen.append((done.before.run_id, done.now.run_id))
    assert seen == [(three, one), (one, two), (two, one)]
    with pytest.raises(UsageError, match=f"nobody had champion of wine before run {one}"):
        rollback(environment, "champion", "wine")
    assert holder(environment) == one
    promoted(environment, three)
    assert rollback(environment, "champion", None).now.run_id == one


def test_an_alias_that_was_moved_in_mlflow_itself_is_part_of_the_history(
    environment: Environment, artifact: Path
) -> None:
    one, two, three = runs(environment, artifact, 3)
    model = promoted_in_turn(environment, one, two, three)
    client = client_of(environment)
    client.set_registered_model_alias(model, "champion", "2")
    assert rollback(environment, "champion", None).now.run_id == one
    client.set_registered_model_alias(model, "champion", "3")
    promoted(environment, two)
    assert rollback(environment, "champion", None).now.run_id == three


@pytest.mark.faults
def test_a_promotion_that_was_killed_half_way_leaves_no_history_that_never_was(
    local: Environment, artifact: Path
) -> None:
    one, two, three = runs(local, artifact, 3)
    model = promoted_in_turn(local, one, two)
    promoted(local, three, "other")  # registered, but never champion
    client = client_of(local)
    # What a kill between the two requests leaves: the history says so, the alias does not.
    client.set_registered_model_tag(model, "lodestar.history.champion", json.dumps(["1", "2", "3"]))
    assert rollback(local, "champion", None).now.run_id == one
    client.set_registered_model_tag(model, "lodestar.history.new", json.dumps(["3"]))
    promoted(local, one, "new")
    with pytest.raises(UsageError, match="nobody had new"):
        rollback(local, "new", None)


def test_rollback_passes_over_a_version_that_was_deleted(
    local: Environment, artifact: Path
) -> None:
    one, two, three = runs(local, artifact, 3)
    model = promoted_in_turn(local, one, two, three)
    client_of(local).delete_model_version(model, "2")
    assert rollback(local, "champion", None).now.run_id == one


def test_an_alias_of_several_recipes_has_to_say_whose(
    environment: Environment, artifact: Path, trained: Callable[..., Trained]
) -> None:
    (wine,) = runs(environment, artifact, 1)
    cancer = saved_copy(
        environment, trained("breast_cancer", *SMALL).artifact, recipe="breast_cancer"
    ).run_id
    promoted(environment, wine)
    promoted(environment, cancer)
    with pytest.raises(UsageError, match="an alias of several recipes") as caught:
        holder(environment)
    assert caught.value.hint == "say which: breast_cancer@champion, wine@champion"
    assert holder(environment, "wine@champion") == wine
    assert rollback_refused(environment, "champion", None) == caught.value.what
    assert "nobody had" in rollback_refused(environment, "champion", "wine")


def rollback_refused(environment: Environment, alias: str, recipe: str | None) -> str:
    with pytest.raises(UsageError) as caught:
        rollback(environment, alias, recipe)
    return caught.value.what


def test_an_unknown_alias_is_answered_with_those_there_are(
    environment: Environment, artifact: Path
) -> None:
    with pytest.raises(UsageError, match="no run of this project and no alias") as caught:
        holder(environment)
    assert "there are none" in str(caught.value.hint)
    (run,) = runs(environment, artifact, 1)
    promoted(environment, run)
    for unknown in ("champ", "wine@stable", "other@champion"):
        with pytest.raises(UsageError) as caught:
            holder(environment, unknown)
        assert "wine@champion" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cafe", "it reads as a run id"),
        ("a1", "it reads as a run id"),
        ("latest", "MLflow keeps it for itself"),
        ("v2", "MLflow keeps it for itself"),
        ("wine@champion", "is no alias"),
        ("../x", "is no alias"),
        ("", "is no alias"),
        ("chämpion", "is no alias"),
        ("x" * 101, "is no alias"),
    ],
)
def test_a_name_that_cannot_be_an_alias_is_refused_before_anything_is_looked_at(
    new_project: Path, name: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        promoted(load_config(new_project, "local", variables={}), "0000", name)
    assert not (new_project / "mlruns").exists()


def test_a_tampered_artifact_is_not_promoted(local: Environment, artifact: Path) -> None:
    first = runs(local, artifact, 1)[0]
    promoted(local, first)
    second = runs(local, artifact, 1)[0]
    with store_of(local).opened(second) as opened:
        (opened.folder / "lodestar" / "contents.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match="tampered with"):
        promoted(local, second)
    assert holder(local) == first
    # Nor is it an obstacle for a sound one, if that is what is wanted.
    promote(local, first, "stable", force=False, tell=Silent())
    client_of(local).set_registered_model_alias("lodestar.wine", "stable", "1")
    with store_of(local).opened(first) as opened:
        (opened.folder / "lodestar" / "contents.json").write_text("{}", encoding="utf-8")
    third = runs(local, artifact, 1)[0]
    with pytest.raises(ArtifactError, match="cannot be compared with") as caught:
        promoted(local, third)
    assert "--force" in str(caught.value.hint)
    done = promote(local, third, "champion", force=True, tell=Silent())
    assert "could not be looked at" in done.differences[0]


def test_callers_would_notice_other_columns_so_that_takes_force(
    lodestar: Lodestar, local: Environment, artifact: Path
) -> None:
    project = local.project
    (first,) = runs(local, artifact, 1)
    wines = pq.read_table(project / "data/wine.parquet")
    ash = wines.column("ash").cast("int64", safe=False)
    narrow = wines.drop(["hue"]).set_column(wines.column_names.index("ash"), "ash", ash)
    pq.write_table(narrow, project / "data/narrow.parquet")
    train = ("train", "-r", "wine", *SMALL, "--set", "loader.source_uri=data/narrow.parquet")
    second = lodestar(*train, "--json", cwd=project).succeeded().json["run_id"]
    promoted(local, first)
    command = ("promote", "--alias", "champion", "--run-id", second)
    lodestar(*command, cwd=project).refused(
        6, "callers of wine@champion", "- request column hue (float)", "ash: float, and int now"
    )
    assert holder(local) == first
    forced = lodestar(*command, "--force", "--json", cwd=project).succeeded().json
    assert forced["run_id"] == holder(local) == second
    assert forced["previous_run_id"] == first
    assert len(forced["differences"]) == 2


def test_the_commands_take_and_show_aliases(
    lodestar: Lodestar, local: Environment, artifact: Path
) -> None:
    first, second = runs(local, artifact, 2)
    for run in (first, second):
        promoted(local, run)
    back = lodestar("rollback", "--json", cwd=local.project).succeeded().json
    assert (back["run_id"], back["previous_run_id"]) == (first, second)
    scored = lodestar("batch-inference", "--run-id", "champion", "--json", cwd=local.project)
    assert scored.succeeded().json["run_id"] == first
    shown = lodestar("runs", "show", "champion", cwd=local.project).succeeded().stderr
    assert first in shown
    assert re.search(r"aliases +champion", shown)
    lodestar("verify", "--run-id", "champ", cwd=local.project).refused(2, "wine@champion")


@pytest.mark.faults
def test_two_promotions_at_once_leave_one_holder_and_a_version_each(
    lodestar: Lodestar, local: Environment, artifact: Path
) -> None:
    one, two = runs(local, artifact, 2)
    started = [
        lodestar.start("promote", "--run-id", run, "--json", cwd=local.project)
        for run in (one, two, one)
    ]
    for process in started:
        ended(process).succeeded()
    versions = client_of(local).search_model_versions("name = 'lodestar.wine'")
    assert sorted(str(version.run_id) for version in versions) == sorted((one, two))
    assert holder(local) in {one, two}
    assert rollback(local, "champion", None).now.run_id in {one, two}


def test_an_experiments_name_does_not_get_in_the_way(local: Environment, artifact: Path) -> None:
    config = local.project / "config/base.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(
        text.replace("experiment_name: lodestar", """experiment_name: "team's/own: v1.0\""""),
        encoding="utf-8",
    )
    odd = load_config(local.project, "local", variables={})
    (run,) = runs(odd, artifact, 1)
    done = promoted(odd, run)
    assert holder(odd, "wine@champion") == run
    assert done.now.model.startswith("team_s_own__v1.0.wine-")


WAS = Contract("classification", ("a", "b"), {"x": "int"}, {"y": "float"})


@pytest.mark.parametrize(
    ("now", "line"),
    [
        (Contract("regression", ("a", "b"), {"x": "int"}, {"y": "float"}), "task: class"),
        (Contract("classification", ("a",), {"x": "int"}, {"y": "float"}), "classes: a, b, and a"),
        (Contract("classification", ("a", "b"), {}, {"y": "float"}), "- request column x (int)"),
        (Contract("classification", ("a", "b"), {"x": "int"}, {}), "- feature y (float)"),
        (
            Contract("classification", ("a", "b"), {"x": "int", "z": "int"}, {"y": "float"}),
            "+ request column z (int)",
        ),
        (
            Contract("classification", ("a", "b"), {"x": "int"}, {"y": "int"}),
            "~ feature y: float, and int now",
        ),
    ],
)
def test_every_difference_of_two_contracts_is_told(now: Contract, line: str) -> None:
    (found,) = WAS.differences(now)
    assert found.startswith(line)
    assert WAS.differences(WAS) == ()
