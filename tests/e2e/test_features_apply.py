"""`lodestar features apply`: on a terminal, in CI, with declarations that do not fit their tables."""

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import COMMAND, Lodestar, edited

TEAM = {"APP_ENV": "team"}
CONFIG = """
environment: {augmenter: feature_store, serving: allowed}
feature_store:
  offline: files
  feast:
    project: shop
    registry: sqlite:///registry.db
    online: sqlite:///online.db
"""
APPLY = ("features", "apply")


@pytest.fixture
def project(sample_project: Path, tmp_path: Path) -> Path:
    """The sample project's declarations and tables, with a Feast project in files."""
    made = tmp_path / "project"
    for folder in ("config", "features"):
        shutil.copytree(sample_project / folder, made / folder)
    (made / "data").mkdir()
    for declared in (made / "features").glob("*.yaml"):
        table = f"data/{declared.stem}.parquet"
        pq.write_table(pq.read_table(sample_project / table).slice(0, 1_000), made / table)
    (made / "config" / "team.yaml").write_text(CONFIG)
    return made


def answered(project: Path, answer: str) -> tuple[int, str]:
    """Apply on a terminal, and answer when it asks; the exit code and all that was on the screen."""
    master, slave = pty.openpty()
    command = [*COMMAND, *APPLY]
    environment = {**os.environ, **TEAM, "TERM": "dumb", "COLUMNS": "200"}
    with subprocess.Popen(
        command, cwd=project, env=environment, stdin=slave, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        seen, asked, ends = "", False, time.monotonic() + 120
        while time.monotonic() < ends:
            if select.select([master], [], [], 0.2)[0]:
                try:
                    read = os.read(master, 65_536)
                except OSError:  # the other end is closed
                    break
                seen += read.decode()
            if "[y/N]" in seen and not asked:
                os.write(master, f"{answer}\n".encode())
                asked = True
        code = process.wait(30)
    os.close(master)
    return code, seen


@pytest.mark.faults
@pytest.mark.slow
def test_a_terminal_is_asked_and_a_pipeline_must_say_yes_where_something_is_removed(
    lodestar: Lodestar, project: Path
) -> None:
    declared = project / "features" / "user_demographics.yaml"
    code, seen = answered(project, "n")
    assert (code, "+   user_demographics: new, by user_id" in seen) == (2, True), seen
    assert "nothing was changed" in seen
    code, seen = answered(project, "y")
    assert code == 0, seen
    assert "4 declarations fit their tables; the registry is as they say" in seen
    (project / "features" / "product_details.yaml").unlink()
    edited(declared, "  country_code: {type: string, sensitive: true}   #", "#")
    lodestar(*APPLY, cwd=project, env=TEAM).refused(
        2,
        "-   user_demographics: feature country_code: gone",
        "- product_details: no longer declared; its online rows are removed",
        "add --yes if that is meant",
    )
    dry = lodestar(*APPLY, "--dry-run", "--json", cwd=project, env=TEAM).succeeded().json
    assert dry["applied"] is False
    done = lodestar(*APPLY, "--yes", "--json", cwd=project, env=TEAM).succeeded().json
    assert done["applied"] is True
    assert done["changes"] == dry["changes"]
    assert {(change["action"], change["name"], change["breaks"]) for change in done["changes"]} == {
        ("remove", "user_demographics", True),
        ("change", "user_demographics", False),
        ("remove", "product_details", True),
        ("remove", "entity product_id", False),
    }
    again = lodestar(*APPLY, "--json", cwd=project, env=TEAM).succeeded().json
    assert (again["changes"], again["applied"]) == ([], False)


def test_declarations_that_their_tables_do_not_bear_out_are_told_all_at_once(
    lodestar: Lodestar, project: Path
) -> None:
    features = project / "features"
    edited(features / "session_summary.yaml", "table: session_summary", "table: sesion_summary")
    edited(features / "product_details.yaml", "price: float", "prize: float")
    edited(features / "product_details.yaml", "category: string", "category: int")
    edited(features / "user_demographics.yaml", "user_id: string", "usr_id: string")
    plain = pq.read_table(project / "data/user_purchase_summary.parquet")
    place = plain.schema.get_field_index("created_timestamp")
    zoneless = plain["created_timestamp"].cast(pa.timestamp("us"))
    naive = plain.set_column(place, "created_timestamp", zoneless)
    pq.write_table(naive, project / "data/user_purchase_summary.parquet")
    refused = lodestar(*APPLY, "--json", cwd=project, env=TEAM).refused(
        3,
        "4 of 4 declarations do not fit their tables",
        "'sesion_summary'",
        "did you mean 'session_summary' or",
        "there is no column 'prize'",
        "did you mean 'price'?",
        "'category' is declared int, and the table has string",
        "there is no column 'usr_id'",
        "the timestamps in 'created_timestamp' have no time zone",
    )
    assert refused.json["error"]["exit_code"] == 3
    assert not (project / "registry.db").exists()


def test_an_environment_that_has_no_registry_checks_and_says_so(
    lodestar: Lodestar, project: Path
) -> None:
    (project / "config" / "team.yaml").write_text(
        "environment: {augmenter: feature_store, serving: allowed}\n"
        "feature_store: {offline: files, redis: {uri: 'redis://nowhere:1/0'}}\n"
    )
    done = lodestar(*APPLY, "--json", cwd=project, env=TEAM).succeeded().json
    assert (done["project"], done["namespaces"], done["applied"]) == (None, 4, False)


def test_local_and_a_teams_own_repository_are_refused(lodestar: Lodestar, project: Path) -> None:
    lodestar(*APPLY, cwd=project).refused(5, "local has no feature store", "--env dev")
    repository = project.parent / "feature_repo"
    repository.mkdir()
    (repository / "feature_store.yaml").write_text("project: theirs\n")
    (project / "config" / "team.yaml").write_text(
        "environment: {augmenter: feature_store, serving: allowed}\n"
        "feature_store: {feast: {repository: ../feature_repo}}\n"
    )
    shutil.rmtree(project / "features")
    lodestar(*APPLY, cwd=project, env=TEAM).refused(5, "own definitions", "feast apply")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{offline: files, provider: feast}", "the section feast is needed"),
        ("{offline: files, provider: redis}", "the section redis is needed"),
        ("{provider: dynamic}", "needs offline"),
        (
            "{offline: files, feast: {project: shop, registry: 'sqlite:///r.db'}}",
            "the section redis is needed",
        ),
        ("{offline: files, feast: {project: shop}}", "needs project and registry"),
        (
            "{offline: files, feast: {project: _shop, registry: 'sqlite:///r.db'}}",
            "does not start with a _",
        ),
        ("{offline: files, feast: {repository: repo}}", "leave offline out"),
        ("{feast: {repository: repo, project: shop}}", "the repository says project itself"),
        ("{offline: files, provider: feest}", "valid: 'dynamic', 'feast', 'redis' or 'dynamodb'"),
    ],
)
def test_a_section_that_cannot_be_is_told_with_its_line(
    lodestar: Lodestar, project: Path, section: str, said: str
) -> None:
    (project / "config" / "team.yaml").write_text(
        f"environment: {{augmenter: feature_store, serving: allowed}}\nfeature_store: {section}\n"
    )
    lodestar(*APPLY, cwd=project, env=TEAM).refused(2, "config/team.yaml:2:feature_store", said)
