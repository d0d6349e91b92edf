"""A run of MLflow's for each trial, where the config asks for it: nested, whole, and in nobody's way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from tests.conftest import Lodestar, Trained
from tests.e2e.test_tuned_training import DEPTH, QUICK, contents

from lodestar.artifact.tracking import Connection
from lodestar.artifact.trial_runs import log_trials

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

LOGGED = (
    *(*QUICK, *DEPTH),
    *("--set", "model.hyperparameters.n_estimators=40"),
    *("--set", "config.hyperparameter_tuning.log_trials=true"),
    *("--set", "config.hyperparameter_tuning.pruning.n_startup_trials=1"),
)


@pytest.fixture(scope="session")
def logged(trained: Callable[..., Trained]) -> Trained:
    return trained("breast_cancer", *LOGGED)


def client_of(project: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{project}/mlruns/mlflow.db")


def children(run: Trained) -> dict[int, Run]:
    """The runs nested in a training's, by the trial's number."""
    client = client_of(run.project)
    experiment = client.get_run(run.run_id).info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run.run_id}'")
    return {int(child.data.tags["lodestar.trial"]): child for child in found}


def history(run: Trained) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = contents(run)["hyperparameter_optimization"][
        "optimization_history"
    ]
    return found


def test_each_trial_is_a_run_with_its_parameters_value_and_state(logged: Trained) -> None:
    runs, client = children(logged), client_of(logged.project)
    assert sorted(runs) == list(range(8))
    for trial in history(logged):
        run = runs[trial["number"]]
        assert run.data.params == {name: str(value) for name, value in trial["params"].items()}
        assert run.data.tags["lodestar.trial_state"] == trial["state"]
        assert run.info.status == {"complete": "FINISHED", "pruned": "KILLED"}[trial["state"]]
        assert run.info.run_name == f"trial {trial['number']}"
        assert run.data.metrics["seconds"] == trial["seconds"]
        told = client.get_metric_history(run.info.run_id, "roc_auc")
        steps = {item.step: item.value for item in told}
        value = {100: trial["value"]} if trial["state"] == "complete" else {}
        assert steps == {**dict(trial["curve"]), **value}
        assert len(told) == len(steps)


def test_the_training_run_is_what_it_is_without_them(lodestar: Lodestar, logged: Trained) -> None:
    parent = client_of(logged.project).get_run(logged.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["tuning.trials"] == 8
    assert not any("trial" in tag for tag in parent.data.tags)
    lodestar("verify", "--run-id", logged.run_id, cwd=logged.project).succeeded()
    command = ("runs", "list", "--most", "1000", "--json")
    listed = lodestar(*command, cwd=logged.project).succeeded().json
    names = {run["run_name"] for run in listed["runs"]}
    assert logged.json["run_name"] in names
    assert not any(name.startswith("trial ") for name in names)


def test_logged_again_after_a_kill_no_trial_is_there_twice(logged: Trained) -> None:
    client, before = client_of(logged.project), children(logged)
    parent = client.get_run(logged.run_id)
    client.update_run(before[3].info.run_id, status="RUNNING")
    client.delete_run(before[5].info.run_id)
    connection = Connection(client, parent.info.experiment_id, "sqlite:///")
    log_trials(connection, parent, logged.artifact, began=parent.info.start_time)
    after = children(logged)
    assert sorted(after) == sorted(before)
    assert after[5].info.run_id != before[5].info.run_id
    for number in (3, 5):
        assert after[number].info.status == before[number].info.status
        assert after[number].data.params == before[number].data.params
        assert after[number].data.metrics == before[number].data.metrics


def test_nobody_who_has_not_asked_for_them_gets_any(trained: Callable[..., Trained]) -> None:
    tuned = trained(
        "breast_cancer", *QUICK, *DEPTH, "--set", "model.hyperparameters.n_estimators=30"
    )
    assert children(tuned) == {}
