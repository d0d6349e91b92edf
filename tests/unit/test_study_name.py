"""A search is gone on with where nothing has changed that its trials depend on."""

from pathlib import Path

import pytest

from lodestar import __version__
from lodestar.pipelines.tuning import study_name
from lodestar.settings.loading import load_settings

ROOT = Path(__file__).resolve().parents[2]
DATA = "5f2a90c3d7e1b486"


def named(*overrides: str, data: str = DATA, **of: str) -> str:
    settings = load_settings(ROOT, "breast_cancer", overrides=overrides, variables={})
    return study_name(settings, data, **of)


def test_more_trials_are_the_same_search() -> None:
    assert named("hyperparameter_tuning.n_trials=99") == named()
    assert named().startswith("breast_cancer-")
    assert named().endswith(DATA[:12])


@pytest.mark.parametrize(
    "override",
    [
        "split.seed=7",
        "hyperparameter_tuning.finalists.splits=3",
        "hyperparameter_tuning.metric=accuracy",
    ],
)
def test_another_recipe_is_another_search(override: str) -> None:
    assert named(override) != named()


def test_other_rows_are_another_search() -> None:
    assert named(data="0" * 16) != named()


def test_another_version_of_ours_is_another_search() -> None:
    assert named(version=__version__) == named()
    assert named(version="999.0") != named()
