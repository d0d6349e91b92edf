"""Whoever trains or promotes a run where it may be served proves how it is scored, once."""

import shutil
from pathlib import Path

import pytest
from tests.conftest import SMALL, Lodestar, edited
from tests.served_projects import write_served_config

from lodestar.artifact.register import OpenedRun
from lodestar.artifact.wrapper import PAYLOAD, PyfuncWrapper
from lodestar.interface.progress import Silent
from lodestar.pipelines.promotion import promote
from lodestar.serving.proving import prove_ahead, prove_loaded
from lodestar.settings.loading import load_config


class Told(Silent):
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def note(self, text: str) -> None:
        self.notes.append(text)


def plans(project: Path) -> list[str]:
    return [path.stem for path in (project / ".lodestar" / "plans").glob("*.plan")]


def test_training_proves_where_the_run_may_be_served(lodestar: Lodestar, project: Path) -> None:
    train = ("train", "-r", "breast_cancer", *SMALL, "--json")
    blocked = lodestar(*train, cwd=project).succeeded()
    assert plans(project) == []
    served = write_served_config(project, "served")
    done = lodestar(*train, cwd=project, env=served).succeeded()
    assert len(plans(project)) == 1
    for run, count in ((done, 1), (blocked, 2)):
        promote = ("promote", "--run-id", run.json["run_id"])
        lodestar(*promote, cwd=project, env=served).succeeded()
        assert len(plans(project)) == count
    told = Told()
    prove_ahead(load_config(project, "served", variables={}), done.json["run_id"], told)
    assert (told.stages, told.notes) == ([], [])


def test_a_promotion_proves_what_it_has_loaded_and_loads_nothing_again(
    lodestar: Lodestar, project: Path
) -> None:
    done = lodestar("train", "-r", "breast_cancer", *SMALL, "--json", cwd=project).succeeded()
    write_served_config(project, "served")
    environment = load_config(project, "served", variables={})
    told = Told()

    def proven(run: OpenedRun, wrapper: PyfuncWrapper) -> None:
        shutil.rmtree(run.folder / PAYLOAD / "components")
        prove_loaded(environment, run, wrapper, told)

    run_id = done.json["run_id"]
    promote(environment, run_id, "champion", force=False, tell=told, then=proven)
    assert told.notes == []
    assert len(plans(project)) == 1


@pytest.mark.faults
def test_what_is_not_to_be_compiled_or_has_no_trees_is_not_proven_ahead(
    lodestar: Lodestar, project: Path
) -> None:
    served = write_served_config(project, "served")
    plain = write_served_config(
        project, "plain", "environment: {serving: allowed}\nserving: {native: false}\n"
    )
    path = "model.class_path=sklearn.linear_model.LogisticRegression"
    linear = ("--set", path, "--set", "model.hyperparameters={}")
    for options, env in (([*SMALL], plain), ([*linear], served)):
        lodestar("train", "-r", "breast_cancer", *options, cwd=project, env=env).succeeded()
    assert plans(project) == []


def test_what_cannot_be_served_is_told_and_does_not_end_the_training(
    lodestar: Lodestar, project: Path
) -> None:
    done = lodestar("train", "-r", "breast_cancer", *SMALL, "--json", cwd=project).succeeded()
    environment = load_config(project, None, variables={})
    (contents,) = project.glob("mlruns/artifacts/models/*/artifacts/lodestar/contents.json")
    edited(contents, '"recipe_name": "breast_cancer"', '"recipe_name": "breast_dancer"')
    told = Told()
    prove_ahead(environment, done.json["run_id"], told)
    (note,) = told.notes
    assert "is not proven" in note
    assert "contents.json" in note
    assert plans(project) == []
