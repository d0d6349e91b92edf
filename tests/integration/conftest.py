"""What several of these tests share."""

from pathlib import Path

import pytest
from tests.conftest import Lodestar
from tests.scoring_projects import Scoring, scoring_project


@pytest.fixture(scope="session")
def scoring_template(
    lodestar: Lodestar, sample_project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Scoring:
    """A project with runs and many rows; tests copy it."""
    return scoring_project(lodestar, sample_project, tmp_path_factory.mktemp("parts") / "project")
