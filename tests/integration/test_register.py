"""Scoring a local run needs no MLflow; the register is a shortcut, never the only way."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import SMALL, Lodestar, Trained

from lodestar.artifact.register import OpenedRun, Register


@pytest.fixture
def wine(trained: Callable[..., Trained]) -> Trained:
    return trained("wine", *SMALL)


@pytest.fixture
def no_mlflow(tmp_path: Path) -> dict[str, str]:
    """An environment in which importing MLflow fails."""
    (tmp_path / "mlflow.py").write_text("raise ImportError('this test has no MLflow')\n")
    return {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("command", ["batch-inference", "verify"])
def test_a_local_run_is_scored_and_verified_without_mlflow(
    command: str, lodestar: Lodestar, wine: Trained, no_mlflow: dict[str, str]
) -> None:
    run = wine.run_id[:10]
    lodestar(command, "--run-id", run, cwd=wine.project, env=no_mlflow).succeeded()
    shown = lodestar("runs", "show", run, cwd=wine.project, env=no_mlflow)
    assert "this test has no MLflow" in shown.stderr


def test_local_runs_are_listed_without_mlflow(
    lodestar: Lodestar, wine: Trained, no_mlflow: dict[str, str]
) -> None:
    command = ("runs", "list", "--most", "1000", "--json")
    listed = lodestar(*command, cwd=wine.project, env=no_mlflow).succeeded()
    assert wine.run_id in {run["run_id"] for run in listed.json["runs"]}


def test_a_run_that_the_register_lost_is_found_through_mlflow(
    lodestar: Lodestar, wine: Trained
) -> None:
    register = wine.project / "mlruns" / "artifacts" / "register"
    file = register / f"{wine.run_id}.json"
    kept = file.read_text()
    file.unlink()
    try:
        lodestar("verify", "--run-id", wine.run_id, cwd=wine.project).succeeded()
    finally:
        file.write_text(kept)


def test_a_prefix_that_several_runs_share_is_left_to_mlflow(tmp_path: Path) -> None:
    register = Register(tmp_path / "register")
    for run_id in ("ab01", "ab02"):
        (tmp_path / run_id).mkdir()
        register.add(OpenedRun(run_id, "a run", f"{run_id}ff", tmp_path / run_id))
    assert register.find("ab") is None
    assert register.find("ab02") == OpenedRun("ab02", "a run", "ab02ff", tmp_path / "ab02")


def test_a_run_whose_folder_is_gone_is_left_to_mlflow(tmp_path: Path) -> None:
    register = Register(tmp_path / "register")
    (tmp_path / "model").mkdir()
    register.add(OpenedRun("ab01", "a run", "ff", tmp_path / "model"))
    shutil.rmtree(tmp_path / "model")
    assert register.find("ab01") is None


def test_a_register_entry_cannot_vouch_for_another_artifact(
    lodestar: Lodestar, wine: Trained
) -> None:
    file = wine.project / "mlruns" / "artifacts" / "register" / f"{wine.run_id}.json"
    kept = file.read_text()
    file.write_text(json.dumps({**json.loads(kept), "digest": "0" * 64}))
    try:
        lodestar("verify", "--run-id", wine.run_id, cwd=wine.project).refused(
            6, "manifest.json is not the one that the run recorded"
        )
    finally:
        file.write_text(kept)
