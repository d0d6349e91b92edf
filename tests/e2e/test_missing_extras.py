"""`check` where a sample's extra is not installed, as in a newcomer's first installation."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import edited
from typer.testing import CliRunner, Result

from lodestar.cli.app import app


@pytest.fixture
def base_install(monkeypatch: pytest.MonkeyPatch, project: Path) -> Callable[..., Result]:
    """Runs commands in the project as where the extra `causal` is not installed."""
    for name in [name for name in sys.modules if name.startswith("causalml")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "causalml", None)
    monkeypatch.chdir(project)
    return lambda *words: CliRunner().invoke(app, words)


def test_check_of_all_recipes_is_fine_where_a_sample_needs_an_extra(
    base_install: Callable[..., Result],
) -> None:
    done = base_install("check", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["missing_extras"] == {"uplift_model_exp3": ["causal"]}
    assert found["errors"] == {}
    assert len(found["recipes"]) == 4
    people = base_install("check").stderr
    assert "- uplift_model_exp3" in people
    assert "pip install 'lodestar-ml[causal]'" in people


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_recipe_that_is_asked_for_is_refused_without_its_extra(
    base_install: Callable[..., Result], command: str
) -> None:
    done = base_install(command, "-r", "uplift_model_exp3")
    assert done.exit_code == 2
    assert "error: recipes/uplift_model_exp3.yaml:4:model.class_path" in done.stderr
    assert "pip install 'lodestar-ml[causal]'" in done.stderr


def test_check_is_not_fine_where_an_extra_is_not_all_that_is_missing(
    base_install: Callable[..., Result], project: Path
) -> None:
    edited(project / "recipes/uplift_model_exp3.yaml", '"roc_auc"', '"roc_aux"')
    done = base_install("check", "--json")
    assert done.exit_code == 2, done.stderr
    found = json.loads(done.stdout)
    assert found["missing_extras"] == {}
    assert len(found["errors"]["uplift_model_exp3"]["problems"]) == 2


def test_check_is_not_fine_where_extras_are_missing_for_every_recipe(
    base_install: Callable[..., Result], project: Path
) -> None:
    others = [file for file in (project / "recipes").glob("*.yaml") if file.stem[0] != "u"]
    for other in others:
        other.unlink()
    shutil.copy(project / "recipes/uplift_model_exp3.yaml", project / "recipes/again.yaml")
    done = base_install("check", "--json")
    assert done.exit_code == 2, done.stderr
    assert set(json.loads(done.stdout)["errors"]) == {"again", "uplift_model_exp3"}
