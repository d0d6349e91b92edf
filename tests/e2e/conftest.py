"""DEV for the whole suite: a project on real PostgreSQL and Redis, one run trained there; a browser."""

import shutil
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.browsers import Chromium, found_chromium
from tests.conftest import Lodestar, edited

from lodestar.infra.loading import ShopSize, load_tables
from lodestar.infra.postgres import PostgresServer
from lodestar.interface.progress import Silent

RECIPE = "uplift_model_exp3"
PARAMS = ("--context-params", "start_date=2025-01-01,end_date=2025-05-01")
SMALL = ("--set", "model.hyperparameters.n_estimators=5")


@pytest.fixture(scope="session")
def dev_project(
    sample_project: Path,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
    redis_uri: str,
) -> Path:
    """A project whose servers are named in its env file, its shop loaded into PostgreSQL."""
    project = tmp_path_factory.mktemp("dev") / "project"
    shutil.copytree(sample_project, project, ignore=shutil.ignore_patterns("mlruns", "outputs"))
    # A busy machine takes longer than whoever waits for an answer would.
    edited(project / "config/dev.yaml", "    timeout: 1.0 ", "    timeout: 20.0 ")
    views = sorted(path.stem for path in (project / "features").glob("*.yaml"))
    tables = ["users", "products", "sessions", "purchases", *views]
    files = [project / "data" / f"{name}.parquet" for name in tables]
    uri = postgres_server.uri.get_secret_value()
    load_tables(SecretStr(uri), files, ShopSize(20_000, 5_000, 500), Silent())
    env_file = project / ".lodestar" / "infra.env"
    env_file.parent.mkdir(exist_ok=True)
    env_file.write_text(
        f"LODESTAR_POSTGRES_URI={uri}\n"
        f"LODESTAR_FEAST_URI={postgres_server.uri_of('feast').get_secret_value()}\n"
        f"LODESTAR_REDIS_URI={redis_uri}\n"
        "LODESTAR_MLFLOW_URI=sqlite:///mlruns/mlflow.db\n"
    )
    return project


@pytest.fixture(scope="session")
def dev_run(lodestar: Lodestar, dev_project: Path) -> str:
    """The id of a run trained in DEV."""
    trained = lodestar(
        "train", "-r", RECIPE, *PARAMS, *SMALL, "--json", cwd=dev_project, env={"APP_ENV": "dev"}
    ).succeeded()
    return str(trained.json["run_id"])


@pytest.fixture
def chromium(tmp_path: Path) -> Chromium:
    """A browser with a new profile."""
    return found_chromium(tmp_path / "profile")
