"""`lodestar check --online` and `lodestar init --stack` as commands."""

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Lodestar, digests, edited
from tests.faults.test_secrets import CANARY, said_by
from tests.infra_projects import SMALL_SHOP, InfraCommand

from lodestar.infra.endpoint import HOST, free_port
from lodestar.samples.stacks import STACKS


def test_the_pieces_of_a_machine_without_servers_are_fine(
    lodestar: Lodestar, new_project: Path
) -> None:
    before = digests(new_project)
    done = lodestar("check", "--online", "-r", "wine", "--json", cwd=new_project).succeeded()
    assert done.json["environment"] == "local"
    states = {piece["name"]: piece["state"] for piece in done.json["pieces"]}
    assert set(states.values()) == {"fine", "not in this config"}
    assert states["recipe wine"] == states["tracking store"] == states["artifacts"] == "fine"
    assert states["online store"] == "not in this config"
    left = {name: digest for name, digest in digests(new_project).items() if "mlruns" not in name}
    assert left == before


def test_what_fails_is_told_with_a_hint_and_its_exit_code_and_no_password(
    lodestar: Lodestar, project: Path
) -> None:
    (project / "config/far.yaml").write_text(
        "data: {adapter: postgres, postgres: {uri: '${PG}', connect_timeout: 1}}\n",
        encoding="utf-8",
    )
    uri = f"postgresql://u:CANARY%2Fp%40ss%3Aw%25rd@{HOST}:{free_port()}/x"
    done = lodestar("check", "--online", "--env", "far", cwd=project, env={"PG": uri})
    assert done.code == 4, done.stderr
    assert "✗ data in postgres" in done.stderr
    assert "hint: check that it runs" in done.stderr
    assert "✓ results" in done.stderr
    assert "1 of 10 pieces failed in far" in done.stderr
    assert not said_by(done, CANARY)


def test_without_its_folder_of_tables_the_data_are_red(lodestar: Lodestar, project: Path) -> None:
    edited(project / "config/base.yaml", "root: data ", "root: datum ")
    done = lodestar("check", "--online", "--json", cwd=project)
    assert done.code == done.json["exit_code"] == 3
    (failed,) = [piece for piece in done.json["pieces"] if piece["state"] == "failed"]
    assert failed["name"] == "data in duckdb"
    assert "datum" in failed["error"]["problems"][0]["what"]


def test_a_key_is_changed_for_a_recipe_alone(lodestar: Lodestar, project: Path) -> None:
    changed = ("check", "--online", "--set", "config.output.root=elsewhere")
    lodestar(*changed, cwd=project).refused(2, "-r RECIPE")


def test_init_writes_a_stack_or_says_which_there_are(lodestar: Lodestar, tmp_path: Path) -> None:
    listed = lodestar("init", "--list-stacks", "--json", cwd=tmp_path).succeeded().json["stacks"]
    assert [item["name"] for item in listed] == list(STACKS)
    lodestar("init", "mine", "--stack", "azure", cwd=tmp_path).refused(2, "'azure'", "gcp_native")
    lodestar("init", cwd=tmp_path).refused(2, "lodestar init DIR")
    assert not (tmp_path / "mine").exists()
    done = lodestar("init", "mine", "--stack", "on_premises", cwd=tmp_path).succeeded()
    assert STACKS["on_premises"].install in done.stderr
    assert "cp config/prod.env.example prod.env" in done.stderr
    assert "lodestar check --online --env prod" in done.stderr
    assert "lodestar deploy render kubernetes" in done.stderr
    missing = lodestar("check", "--online", "--env", "prod", cwd=tmp_path / "mine")
    missing.refused(2, "config/prod.yaml:15:data.postgres.uri", "LODESTAR_SHARE")


@pytest.fixture
def shop(lodestar: Lodestar) -> Iterator[InfraCommand]:
    """A project of the stack local_development; whatever runs in it is stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="lodestar-"))
    folder.chmod(0o755)  # where we are root, PostgreSQL runs as another user
    lodestar("init", "shop", "--stack", "local_development", cwd=folder).succeeded()
    command = InfraCommand(folder / "shop")
    try:
        yield command
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            command("down")
        for process in command.processes():
            process.kill()
        shutil.rmtree(folder)


@pytest.mark.faults  # half a minute: three servers are started
def test_local_development_is_fine_from_init_to_the_last_piece(
    lodestar: Lodestar, shop: InfraCommand
) -> None:
    shop("up", *SMALL_SHOP, "--json").succeeded()

    def pieces(*words: str) -> dict[str, str]:
        done = lodestar(
            "check", "--online", "--env", "dev", *words, "--json", cwd=shop.project
        ).succeeded()
        for secret in shop.variables().values():
            assert secret not in done.stdout + done.stderr
        found = {piece["name"]: piece for piece in done.json["pieces"]}
        assert found.pop("studies")["state"] == "not in this config"  # the search is off
        assert {piece["state"] for piece in found.values()} == {"fine"}, done.stdout
        return {name: piece["said"] for name, piece in found.items()}

    first = pieces("-r", "uplift_model_exp3")
    assert "lodestar features apply" in first["feature registry"]
    assert "9 features" in first["recipe uplift_model_exp3"]
    assert "never materialised" in first["online rows of user_demographics"]
    dev = ("--env", "dev")
    lodestar("features", "apply", "--yes", *dev, cwd=shop.project).succeeded()
    until = ("--until", "2025-03-31T12:00:00")
    lodestar("features", "materialize", *until, *dev, cwd=shop.project).succeeded()
    later = pieces()
    assert later["feature registry"] == "as declared"
    assert "until 2025-03-31 12:00:00 UTC" in later["online rows of user_demographics"]
    shop("down").succeeded()
    down = lodestar("check", "--online", "--env", "dev", cwd=shop.project)
    assert down.code == 4
    assert "✗ tracking store" in down.stderr
    assert "✓ results" in down.stderr
