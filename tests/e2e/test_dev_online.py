"""DEV's online store by way of Feast and without it: apply, materialise, hold both paths together."""

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
import redis
from tests.conftest import Lodestar, edited

LAST_DAYS = ("--context-params", "start_date=2025-03-25,end_date=2025-04-01")
UNTIL = ("--until", "2025-03-31T12:00:00")
DEV = {"APP_ENV": "dev"}
NO_FEAST = 'raise RuntimeError("Feast was imported")\n'


@pytest.fixture(scope="module", params=["feast", pytest.param("redis", marks=pytest.mark.faults)])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def project(
    lodestar: Lodestar,
    dev_project: Path,
    dev_run: str,
    provider: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A copy of the DEV project, with its run, that has this provider; what is declared is applied."""
    assert dev_run
    made = shutil.copytree(dev_project, tmp_path_factory.mktemp(provider) / "project")
    edited(made / "config/dev.yaml", "provider: dynamic", f"provider: {provider}")
    edited(made / "config/dev.yaml", "project: shop", "project: shop_of_the_online_tests")
    applied = lodestar("features", "apply", "--json", cwd=made, env=DEV).succeeded().json
    assert applied["applied"] is (provider == "feast")
    return made


@pytest.fixture(scope="module")
def materialized(lodestar: Lodestar, project: Path) -> Mapping[str, int]:
    done = lodestar("features", "materialize", *UNTIL, "--json", cwd=project, env=DEV)
    return {item["namespace"]: item["entities"] for item in done.succeeded().json["namespaces"]}


@pytest.fixture
def without_feast(tmp_path: Path) -> dict[str, str]:
    """DEV for a command that fails if it imports Feast, whose import takes seconds."""
    package = tmp_path / "feast"
    package.mkdir()
    (package / "__init__.py").write_text(NO_FEAST)
    return {**DEV, "PYTHONPATH": str(tmp_path)}


def test_batch_path_and_online_path_agree_bit_by_bit(
    lodestar: Lodestar,
    project: Path,
    dev_run: str,
    materialized: Mapping[str, int],
    without_feast: dict[str, str],
) -> None:
    assert materialized["user_demographics"] > 4_900
    assert materialized["session_summary"] > 100
    compared = lodestar(
        "parity", "--run-id", dev_run, *LAST_DAYS, "--json", cwd=project, env=without_feast
    ).succeeded()
    assert compared.json["equal"] is True
    assert compared.json["rows"] == 1000
    stages = {column["stage"] for column in compared.json["columns"]}
    assert stages == {"features", "preprocessed", "predictions"}


def test_what_reads_and_scores_does_without_feast(
    lodestar: Lodestar,
    project: Path,
    dev_run: str,
    materialized: Mapping[str, int],
    without_feast: dict[str, str],
) -> None:
    assert materialized
    listed = lodestar("features", "list", "--json", cwd=project, env=without_feast).succeeded()
    until = {item["materialized_until"] for item in listed.json["namespaces"]}
    assert until == {"2025-03-31T12:00:00+00:00"}
    words = ("batch-inference", "--run-id", dev_run, *LAST_DAYS)
    lodestar(*words, cwd=project, env=without_feast).succeeded()


def test_how_old_features_are_and_what_waits_is_told(
    lodestar: Lodestar,
    project: Path,
    materialized: Mapping[str, int],
    without_feast: dict[str, str],
) -> None:
    status = ("features", "status", "--json", "--fail-on-stale")
    then = ("--as-of", "2025-03-31T12:00:00")
    told = lodestar(*status, *then, cwd=project, env=without_feast).succeeded().json
    found = {one["namespace"]: one for one in told["namespaces"]}
    assert {one["state"] for one in found.values()} == {"fresh"}
    assert {one["waiting"] for one in found.values()} == {0}
    users = found["user_demographics"]
    assert users["ages"]["entities"] >= materialized["user_demographics"]
    assert users["ages"]["newest"] <= users["ages"]["median"] <= users["ages"]["oldest"]
    assert users["newest_event"] <= "2025-03-31T12:00:00+00:00" == users["materialised_until"]

    later = ("--as-of", "2025-04-20T12:00:00")
    done = lodestar(*status, *later, cwd=project, env=DEV)
    assert done.code == 7, done.stderr
    found = {one["namespace"]: one for one in done.json["namespaces"]}
    behind = found["session_summary"]
    assert (behind["state"], behind["waiting"] > 100) == ("behind", True)
    assert 19 * 86_400 < behind["lag"] <= 20 * 86_400
    assert "wait for lodestar features materialize" in behind["why"]


@pytest.fixture
def spoiled(redis_uri: str, provider: str, materialized: Mapping[str, int]) -> Iterator[str]:
    """Another value of one feature in the online store, for as long as the test runs."""
    assert materialized
    with redis.Redis.from_url(redis_uri) as client:
        if provider == "redis":
            keys = sorted(client.scan_iter("user_purchase_summary:ltv:*"))
            before = {key: client.get(key) for key in keys}
            for key in keys:
                client.set(key, "123.0")
            yield "123.0"
            for key, value in before.items():
                client.set(key, value)
            return
        from feast.infra.online_stores.helpers import _mmh3
        from feast.protos.feast.types.Value_pb2 import Value

        field = _mmh3("user_purchase_summary:ltv")
        keys = sorted(client.scan_iter("*user_id*shop_of_the_online_tests"))
        before = {key: client.hget(key, field) for key in keys}
        for key in keys:
            client.hset(key, field, Value(double_val=123.0).SerializeToString())
        yield "123.0"
        for key, value in before.items():
            client.hset(key, field, value)


def test_a_value_that_was_changed_in_the_online_store_is_found_and_named(
    lodestar: Lodestar, project: Path, dev_run: str, spoiled: str
) -> None:
    found = lodestar("parity", "--run-id", dev_run, *LAST_DAYS, "--json", cwd=project, env=DEV)
    assert found.code == 3
    first = found.json["first_difference"]
    assert (first["stage"], first["name"], first["online"]) == ("features", "ltv", spoiled)
    broken = {column["name"] for column in found.json["columns"] if column["differing"]}
    assert broken == {"ltv", "prediction"}


def test_the_online_store_does_not_go_back_and_leaves_no_gap(
    lodestar: Lodestar, project: Path, materialized: Mapping[str, int]
) -> None:
    assert materialized
    words = ("features", "materialize")
    lodestar(*words, "--until", "2025-03-01", cwd=project, env=DEV).refused(2, "does not go back")
    gap = ("--since", "2025-03-31T13:00:00", "--until", "2025-03-31T14:00:00")
    lodestar(*words, *gap, cwd=project, env=DEV).refused(2, "would be missing", "leave --since out")


def test_a_namespace_that_was_never_materialised_is_named(
    lodestar: Lodestar, dev_project: Path, dev_run: str, provider: str, redis_uri: str
) -> None:
    project = dev_project.parent / f"never_{provider}"
    shutil.copytree(dev_project, project)
    edited(project / "config/dev.yaml", "provider: dynamic", f"provider: {provider}")
    edited(project / "config/dev.yaml", "project: shop", "project: never")
    uri = f"LODESTAR_REDIS_URI={redis_uri}"
    edited(project / ".lodestar/infra.env", uri, f"{uri.removesuffix('/0')}/7")
    words = ("parity", "--run-id", dev_run, *LAST_DAYS)
    lodestar(*words, cwd=project, env=DEV).refused(
        3, "user_demographics", "session_summary", "never materialised", "features materialize"
    )


def test_the_sessions_of_a_command_say_what_they_are_for(
    lodestar: Lodestar, dev_project: Path, dev_run: str, postgres_uri: str
) -> None:
    """A lock holds the commands' queries, so that they can be looked at."""
    expected = {
        ("batch-inference", "--run-id", dev_run): f"lodestar batch {dev_run[:8]}",
        ("train", "-r", "uplift_model_exp3"): "lodestar train uplift_model_exp3",
    }
    for words, name in expected.items():
        with psycopg.connect(postgres_uri) as holder:
            holder.execute("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE")
            process = lodestar.start(*words, *LAST_DAYS, cwd=dev_project, env=DEV)
            try:
                assert _seen(postgres_uri, name)
            finally:
                process.kill()
                process.communicate(timeout=60)


def _seen(uri: str, name: str) -> bool:
    asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'active'"
    ends = time.monotonic() + 60
    with psycopg.connect(uri, autocommit=True) as looking:
        while time.monotonic() < ends:
            row = looking.execute(asked, (name,)).fetchone()
            if row and row[0]:
                return True
            time.sleep(0.1)
    return False
