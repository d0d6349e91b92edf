"""`check --online`: real servers, all well; then each piece red for a reason of its own."""

import gc
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
import redis
from mlflow import MlflowClient
from rich.console import Console
from tests.conftest import copy_of
from tests.databases import Database, fresh_database
from tests.dynamodb_places import KEY, REGION, SECRET, client_of, make_tables
from tests.faults.injector.answers import Answers
from tests.object_stores import S3Box
from tests.redis_places import one_redis
from tests.tracking import MLFLOWS_WARNINGS

from lodestar.adapters.threads.daemon import DaemonThreads
from lodestar.cli.checking_views import OnlineView
from lodestar.cli.progress import ConsoleProgress
from lodestar.infra.endpoint import HOST, free_port
from lodestar.infra.mlflow_server import MlflowServer
from lodestar.interface.progress import Silent
from lodestar.pipelines.check_online import CheckedOnline, CheckedPiece, _tried, check_online
from lodestar.pipelines.online_pieces import Piece, Said
from lodestar.settings.features import load_features
from lodestar.settings.loading import load_config, load_settings

pytestmark = MLFLOWS_WARNINGS

CANARY = "CANARY-of-a-password"
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
CONFIG = """\
environment: {augmenter: feature_store, serving: allowed}
data:
  adapter: postgres
  postgres: {uri: "${PG}", connect_timeout: 15}
  s3: {endpoint_url: "${S3}", region: us-east-1, access_key_id: any, secret_access_key: "${SECRET}",
       attempts: 1, connect_timeout: 20}
  snapshots: s3://${BUCKET}/snapshots
feature_store:
  offline: postgres
  provider: ${PROVIDER:redis}
  redis: {uri: "${REDIS}", timeout: 10.0}
  dynamodb: {region: REGION, endpoint_url: "${DYNAMO}", access_key_id: "${KEY}",
             secret_access_key: "${SECRET}", table_prefix: "${PREFIX:none.}", timeout: 20.0}
mlflow: {tracking_uri: "${MLFLOW}", experiment_name: "${EXPERIMENT}"}
output: {root: "${OUT}"}
hyperparameter_tuning: {enabled: true, storage: "${STUDIES:.lodestar/studies}"}
serving: {host: "${HOST:127.0.0.1}"}
""".replace("REGION", REGION)
USERS = """\
namespace: users
entity_keys: {user_id: string}
source: {table: user_facts}
features: {city: string, points: int}
"""
RECIPE = """\
model: {class_path: sklearn.linear_model.LogisticRegression}
loader: {source_uri: recipes/sql/loaders/visits.sql}
augmenter: {type: feature_store, features: [{feature_namespace: users, features: [city, points]}]}
data_interface: {task_type: classification, target_col: bought, entity_keys: [user_id],
                 event_timestamp_col: at}
"""
ONLINE = "online rows of users"
EVERY = {
    *("tracking store", "artifacts", "data in postgres", "feature declarations", "table of users"),
    *("feature registry", ONLINE, "results", "snapshots", "studies", "serving"),
}


@dataclass(frozen=True)
class Lab:
    """A project, and variables by which all of its pieces work."""

    folder: Path
    variables: Mapping[str, str] = field(repr=False)

    def check(self, recipe: str | None = None, **changed: str) -> CheckedOnline:
        variables = {**self.variables, **changed}
        settings = None
        environment = load_config(self.folder, "lab", variables=variables)
        if recipe is not None:
            settings = load_settings(self.folder, recipe, environment="lab", variables=variables)
        return check_online(environment, settings, within=60.0, tell=Silent())


@pytest.fixture(scope="module")
def database(postgres_uri: str) -> Iterator[Database]:
    with fresh_database(postgres_uri) as database:
        facts = {"user_id": ["u"], "event_timestamp": [NOON], "city": ["Bonn"], "points": [1]}
        database.put(pa.table(facts), "user_facts")
        visits = {"user_id": ["u", "v"], "at": [NOON, NOON], "bought": ["yes", "no"]}
        database.put(pa.table(visits), "visits")
        yield database


@pytest.fixture(scope="module")
def box(s3_endpoint: str) -> S3Box:
    box = S3Box(s3_endpoint)
    box.make()
    return box


@pytest.fixture
def lab(
    sample_project: Path,
    tmp_path: Path,
    database: Database,
    redis_uri: str,
    mlflow_server: MlflowServer,
    box: S3Box,
) -> Iterator[Lab]:
    folder = tmp_path / "project"
    for name, text in {
        "config/base.yaml": (sample_project / "config/base.yaml").read_text(encoding="utf-8"),
        "config/lab.yaml": CONFIG,
        "features/users.yaml": USERS,
        "recipes/visits.yaml": RECIPE,
        "recipes/sql/loaders/visits.sql": "SELECT user_id, at, bought FROM visits",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    yield Lab(
        folder,
        {
            "PG": database.uri,
            "REDIS": redis_uri,
            "S3": box.endpoint,
            "BUCKET": box.name,
            "SECRET": SECRET,
            "KEY": KEY,
            "DYNAMO": f"http://{HOST}:9",
            "MLFLOW": mlflow_server.uri.get_secret_value(),
            "EXPERIMENT": f"check-{uuid4().hex[:8]}",
            "OUT": f"s3://{box.name}/results",
        },
    )
    gc.collect()  # what warns of MLflow's sockets does so here, where it is expected


def red(checked: CheckedOnline) -> set[str]:
    assert checked.bug is None
    return {piece.name for piece in checked.pieces if piece.state == "failed"}


def said(checked: CheckedOnline) -> str:
    """All that people and programs are shown of it."""
    view, text = OnlineView(checked), StringIO()
    view.print(Console(file=text, width=200))
    causes = [repr(piece.error.__cause__) for piece in checked.pieces if piece.error]
    return text.getvalue() + json.dumps(view.json(), default=str) + "".join(causes)


def errors(checked: CheckedOnline, name: str) -> str:
    (found,) = [piece.error for piece in checked.pieces if piece.name == name]
    assert found is not None
    return str(found)


def test_all_is_well_and_nothing_of_it_is_left(
    lab: Lab, database: Database, box: S3Box, redis_uri: str
) -> None:
    client = redis.Redis.from_url(redis_uri)
    before = (database.tables(), sorted(client.scan_iter()), box.names())
    checked = lab.check("visits")
    assert red(checked) == set(), said(checked)
    assert checked.exit_code == 0
    assert {piece.name for piece in checked.pieces} == EVERY | {"recipe visits"}
    assert (database.tables(), sorted(client.scan_iter()), box.names()) == before
    assert box.unfinished() == []
    mlflow = MlflowClient(tracking_uri=lab.variables["MLFLOW"])
    experiment = mlflow.get_experiment_by_name(lab.variables["EXPERIMENT"])
    assert experiment is not None
    assert not [tag for tag in experiment.tags if "check" in tag]
    assert mlflow.search_runs([experiment.experiment_id]) == []
    client.close()


def test_the_artifacts_of_a_server_are_left_as_they_were(
    lab: Lab, enterable_folder: Path, mlflow_server: MlflowServer
) -> None:
    def files() -> set[Path]:
        return {path for path in (enterable_folder / "tracking").rglob("*") if path.is_file()}

    before = files()
    checked = lab.check()
    assert red(checked) == set(), said(checked)
    assert {path.name for path in files() - before} <= {"mlflow.db-journal", "mlflow.db-wal"}


@pytest.mark.parametrize(
    ("variable", "address", "wanted"),
    [
        ("PG", "postgresql://u:{}@{}:{}/x", {"data in postgres", "table of users"}),
        ("REDIS", "redis://:{}@{}:{}/0", {ONLINE}),
        ("MLFLOW", "http://u:{}@{}:{}", {"tracking store", "artifacts"}),
    ],
)
def test_a_server_that_is_down_makes_its_own_pieces_red_and_no_other(
    lab: Lab, variable: str, address: str, wanted: set[str]
) -> None:
    checked = lab.check(**{variable: address.format(CANARY, HOST, free_port())})
    assert red(checked) == wanted, said(checked)
    assert {piece.name for piece in checked.pieces} == EVERY
    assert checked.exit_code == 4
    assert CANARY not in said(checked)
    assert "hint" in said(checked)


def test_a_store_that_is_down_makes_results_and_snapshots_red(lab: Lab) -> None:
    checked = lab.check(S3=f"http://{HOST}:{free_port()}", SECRET=CANARY)
    assert red(checked) == {"results", "snapshots"}, said(checked)
    assert checked.exit_code == 4
    assert "S3 does not answer" in errors(checked, "results")
    assert CANARY not in said(checked)


def test_wrong_passwords_are_told_as_such(
    lab: Lab, database: Database, redis_uri: str, mlflow_server: MlflowServer
) -> None:
    other = redis_uri.rpartition("@")[2]
    with Answers(HOST, mlflow_server.port) as proxy:
        proxy.answer("/api/", 401, b"no")
        checked = lab.check(
            PG=database.uri.replace(f":{database.password}@", f":{CANARY}@"),
            REDIS=f"redis://:{CANARY}@{other}",
            MLFLOW=f"http://u:{CANARY}@{proxy.host}:{proxy.port}",
        )
    assert red(checked) == {
        *("data in postgres", "table of users", ONLINE, "tracking store", "artifacts")
    }, said(checked)
    assert "password authentication failed" in errors(checked, "data in postgres")
    assert "password" in errors(checked, ONLINE)
    assert "401" in errors(checked, "tracking store")
    assert checked.exit_code == 4
    assert CANARY not in said(checked)


def test_a_bucket_that_is_missing_is_named(lab: Lab) -> None:
    checked = lab.check(OUT="s3://nobodys-bucket/results")
    assert red(checked) == {"results"}, said(checked)
    assert "no bucket 'nobodys-bucket'" in errors(checked, "results")
    assert checked.exit_code == 3


def test_results_in_a_schema_that_is_missing_are_red_and_in_one_that_is_there_leave_it_as_it_was(
    lab: Lab, database: Database
) -> None:
    checked = lab.check(OUT="postgres://nobodys")
    assert red(checked) == {"results"}, said(checked)
    assert "nobodys" in errors(checked, "results")
    before = database.tables()
    assert red(lab.check(OUT=f"postgres://{database.schema}")) == set()
    assert database.tables() == before


def test_a_folder_of_results_is_made_for_the_try_and_goes_with_it(lab: Lab) -> None:
    assert red(lab.check(OUT="deep/down")) == set()
    assert not (lab.folder / "deep").exists()
    (lab.folder / "taken").write_text("a file", encoding="utf-8")
    checked = lab.check(OUT="taken/results")
    assert red(checked) == {"results"}, said(checked)
    assert checked.exit_code == 4


def test_a_table_and_a_column_that_are_missing_are_named_with_the_near_names(lab: Lab) -> None:
    declared = lab.folder / "features/users.yaml"
    declared.write_text(USERS.replace("user_facts", "user_fact"), encoding="utf-8")
    checked = lab.check()
    assert red(checked) == {"table of users"}, said(checked)
    assert "did you mean 'user_facts'" in errors(checked, "table of users")
    assert checked.exit_code == 3
    declared.write_text(USERS.replace("points: int", "point: int"), encoding="utf-8")
    checked = lab.check()
    assert red(checked) == {"table of users"}, said(checked)
    assert "'point'" in errors(checked, "table of users")


def test_declarations_that_cannot_be_read_leave_the_rest_to_be_tried(lab: Lab) -> None:
    (lab.folder / "features/users.yaml").write_text("namespace: 1\n", encoding="utf-8")
    checked = lab.check()
    assert red(checked) == {"feature declarations"}, said(checked)
    states = {piece.name: piece.state for piece in checked.pieces}
    assert states["online store"] == "cannot be checked"
    assert states["results"] == "fine"
    assert checked.exit_code == 2


def test_a_recipe_whose_table_is_missing_is_red_by_itself(lab: Lab) -> None:
    sql = lab.folder / "recipes/sql/loaders/visits.sql"
    sql.write_text("SELECT user_id, at, bought FROM visit", encoding="utf-8")
    checked = lab.check("visits")
    assert red(checked) == {"recipe visits"}, said(checked)
    assert "'visits'" in errors(checked, "recipe visits")


def test_a_database_of_studies_is_opened_as_a_search_does(lab: Lab, postgres_uri: str) -> None:
    def state(checked: CheckedOnline) -> str:
        (found,) = [piece.state for piece in checked.pieces if piece.name == "studies"]
        return found

    assert state(lab.check()) == "not in this config"
    with fresh_database(postgres_uri) as own:
        assert state(lab.check(STUDIES=own.uri)) == "fine"
        assert "studies" in own.tables()
        wrong = own.uri.replace(f":{own.password}@", f":{CANARY}@")
        checked = lab.check(STUDIES=wrong)
    assert red(checked) == {"studies"}, said(checked)
    assert checked.exit_code == 4
    assert CANARY not in said(checked)


def test_an_api_that_anyone_could_ask_is_red(lab: Lab) -> None:
    checked = lab.check(HOST="0.0.0.0")  # noqa: S104 -- what is refused
    assert red(checked) == {"serving"}, said(checked)
    assert checked.exit_code == 5


@pytest.mark.faults
def test_a_redis_that_hangs_is_red_within_its_own_deadline(lab: Lab, tmp_path: Path) -> None:
    with one_redis(tmp_path / "redis") as server:
        assert red(lab.check(REDIS=server.uri)) == set()
        server.signal(signal.SIGSTOP)
        checked = lab.check(REDIS=server.uri)
        server.signal(signal.SIGCONT)
    assert red(checked) == {ONLINE}, said(checked)
    assert server.password not in said(checked)


def test_a_dynamodb_without_the_table_is_red_and_with_it_keeps_nothing_of_the_try(
    lab: Lab, dynamodb_url: str
) -> None:
    prefix = f"{uuid4().hex}."
    given = {"PROVIDER": "dynamodb", "DYNAMO": dynamodb_url, "PREFIX": prefix}
    checked = lab.check(**given)
    assert red(checked) == {ONLINE}, said(checked)
    assert f"{prefix}users" in errors(checked, ONLINE)
    assert "lodestar features apply" in errors(checked, ONLINE)
    client: Any = client_of(dynamodb_url)
    make_tables(client, prefix, list(load_features(lab.folder).views.values()))
    checked = lab.check(**given)
    assert red(checked) == set(), said(checked)
    assert client.scan(TableName=f"{prefix}users")["Items"] == []
    down = lab.check(**{**given, "DYNAMO": f"http://{HOST}:{free_port()}", "SECRET": CANARY})
    assert red(down) == {ONLINE, "feature registry"}, said(down)
    assert CANARY not in said(down)


def test_a_terminal_lists_each_piece_once(sample_project: Path, tmp_path: Path) -> None:
    environment = load_config(copy_of(sample_project, tmp_path / "project"), None, variables={})
    file = StringIO()
    console = Console(file=file, width=120, force_terminal=True, highlight=False)
    with ConsoleProgress(console) as progress:
        checked = check_online(environment, None, within=60.0, tell=progress)
    OnlineView(checked).print(console)
    lines = left_on_screen(file.getvalue())
    for piece in checked.pieces:
        assert sum(piece.name in line for line in lines) == 1, lines
    assert lines[0].startswith(f"✓ Trying out local  {len(checked.pieces)} pieces")


def left_on_screen(written: str) -> list[str]:
    """The lines that a terminal still shows when all of it was written."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", written):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part == "\x1b[1A":
            row -= 1
        elif part[0] not in "\x1b\r":
            lines[row] += part
    return lines


def test_what_does_not_answer_in_time_is_red_and_a_bug_hides_no_other_piece() -> None:
    threads, never = DaemonThreads(4, "test"), threading.Event()

    def tried(work: Callable[[], Said], within: float = 60.0) -> CheckedPiece:
        return _tried(Piece("a piece", "a.key", work), threads, within, Silent())

    def hangs() -> Said:
        never.wait()
        return Said("fine", "too late")

    def times_out_by_itself() -> Said:
        raise TimeoutError

    late = tried(hangs, within=0.1)
    never.set()
    assert late.state == "failed"
    assert "no answer within 0.1 s" in str(late.error)
    assert tried(lambda: Said("fine", "well")).said == "well"
    assert isinstance(tried(lambda: Said("fine", str(1 // 0))).bug, ZeroDivisionError)
    bug = tried(times_out_by_itself)
    assert (bug.state, bug.error) == ("failed", None)
    assert CheckedOnline("lab", (late, bug)).bug is bug.bug
    threads.end()
