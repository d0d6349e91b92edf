"""A champion that was swapped in goes for what it does itself, not for what the store does to all."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from tests.conftest import Lodestar
from tests.redis_places import Redis, one_redis
from tests.served_projects import served_run
from tests.serving_places import Served
from tests.swapping import PATIENCE, eventually
from tests.voucher_project import AS_OF, RECIPE, Voucher, served_config

pytestmark = [pytest.mark.faults, pytest.mark.slow]

KEY = {"X-API-Key": "an administrator's key"}
SERVING = """\
serving:
  authentication: {{admin_keys: [{digest}]}}
  rollback: {{watch_seconds: 120, window_seconds: 1, requests: 20, latency_p99_seconds: 5}}
"""
# Answers also where the store knows nothing of the product; the other recipe then refuses.
PATIENT = RECIPE.replace("- price\n", "- {name: price, on_missing: 0.0}\n").replace(
    "- brand\n", '- {name: brand, on_missing: "none"}\n'
)


@pytest.fixture(scope="module")
def patient(lodestar: Lodestar, voucher: Voucher) -> str:
    """A run whose policies fill in every feature of the product."""
    (voucher.project / "recipes" / "voucher.yaml").write_text(PATIENT)
    done = lodestar("train", "-r", "voucher", "--json", cwd=voucher.project).succeeded()
    return str(done.json["run_id"])


@pytest.fixture
def store(lodestar: Lodestar, voucher: Voucher, tmp_path: Path) -> Iterator[Redis]:
    """The store with every feature."""
    digest = hashlib.sha256(KEY["X-API-Key"].encode()).hexdigest()
    with one_redis(tmp_path / "redis", "--appendonly", "yes") as redis:
        config = served_config(redis.uri, SERVING.format(digest=digest))
        (voucher.project / "config" / "watched.yaml").write_text(config)
        lodestar(
            "features", "materialize", "--until", AS_OF,
            cwd=voucher.project, env=voucher.environment("watched"),
        ).succeeded()  # fmt: skip
        yield redis


@pytest.fixture
def server(voucher: Voucher, patient: str, store: Redis) -> Iterator[Served]:
    """Serves the patient run, after the store was filled."""
    env = voucher.environment("watched")
    with served_run(voucher.project, patient, "--as-of", AS_OF, env=env) as served:
        yield served


class Asking:
    """A client that asks on and on; `statuses` are what it was told last."""

    def __init__(self, server: Served, voucher: Voucher) -> None:
        self._server, self._keys = server, voucher.keys
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask_on)
        self.told: list[tuple[int, Any]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self._thread.join(20)

    def then(self, wanted: Callable[[int, Any], bool], count: int = 50) -> None:
        """Wait until so many answers in a row are as wanted."""
        ends = time.monotonic() + PATIENCE
        while len(self.told) < count or not all(wanted(*answer) for answer in self.told[-count:]):
            assert time.monotonic() < ends, self.told[-1]
            time.sleep(0.1)

    def _ask_on(self) -> None:
        with self._server.client(headers=KEY) as client:
            at = 0
            while not self._ended.wait(0.01):
                said = client.post("/predict", json=self._keys[at % len(self._keys)])
                self.told.append((said.status_code, said.json()))
                at += 1


def admin(server: Served, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 -- JSON
    with server.client(headers=KEY) as client:
        found = client.request(method, path, timeout=120, **options)
    assert found.status_code == 200, found.text
    return found.json()


def test_a_model_that_refuses_what_the_former_one_answers_is_taken_back(
    server: Served, voucher: Voucher, patient: str, store: Redis
) -> None:
    with Asking(server, voucher) as asking:
        admin(server, "POST", "/admin/swap", json={"run_id": voucher.run_id})
        asking.then(lambda status, body: status == 200 and body["run_id"] == voucher.run_id)
        redis = store.client()
        redis.delete(*redis.scan_iter("product_details:*"))
        eventually(lambda: admin(server, "GET", "/admin/state")["generation"] == 2)
        asking.then(lambda status, body: status == 200 and body["run_id"] == patient)
        assert asking.told[-1][1]["missing"] == ["price", "category", "brand"]
    state = admin(server, "GET", "/admin/state")
    assert state["rollback"]["reason"] == "errors"
    assert "answers failed" in state["rollback"]["said"]


def test_a_store_that_is_gone_takes_no_model_back(
    server: Served, voucher: Voucher, store: Redis
) -> None:
    with Asking(server, voucher) as asking:
        admin(server, "POST", "/admin/swap", json={"run_id": voucher.run_id})
        asking.then(lambda status, body: status == 200 and body["run_id"] == voucher.run_id)
        store.kill()
        asking.then(lambda status, _: status == 503)
        windows = admin(server, "GET", "/admin/state")["watch"]["windows"]
        eventually(lambda: admin(server, "GET", "/admin/state")["watch"]["windows"] > windows + 2)
        state = admin(server, "GET", "/admin/state")
        assert state["generation"] == 1
        assert state["watch"]["last"]["error_rate"] == 0
        store.start()
        asking.then(lambda status, body: status == 200 and body["run_id"] == voucher.run_id)
        time.sleep(2)
        assert admin(server, "GET", "/admin/state")["generation"] == 1
