"""The online store fails under load: every 200 is right or flagged, and service comes back by itself."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from tests.conftest import Lodestar
from tests.redis_places import Redis, one_redis
from tests.served_projects import served_run
from tests.serving_places import Served, until
from tests.voucher_project import AS_OF, Voucher, served_config

pytestmark = pytest.mark.faults

RECOVERS_WITHIN = 2.0
ALL_MISSING = {"age", "country_code", "ltv", "total_purchase_count", "price", "category", "brand"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Redis]:
    with one_redis(tmp_path / "redis", "--appendonly", "yes") as server:
        yield server


@pytest.fixture
def filled(lodestar: Lodestar, voucher: Voucher, store: Redis) -> Redis:
    """The store with every feature, and two environments: one refuses, one degrades."""
    config = voucher.project / "config"
    config.joinpath("refusing.yaml").write_text(served_config(store.uri))
    degrade = "serving: {online: {on_failure: degrade}}\n"
    config.joinpath("degrading.yaml").write_text(served_config(store.uri, degrade))
    lodestar(
        "features", "materialize", "--until", AS_OF,
        cwd=voucher.project, env=voucher.environment("refusing"),
    ).succeeded()  # fmt: skip
    return store


@contextmanager
def _serving(voucher: Voucher, environment: str) -> Iterator[Served]:
    env = voucher.environment(environment)
    with served_run(voucher.project, voucher.run_id, "--as-of", AS_OF, env=env) as server:
        yield server


@dataclass
class Load:
    """Clients that go on asking, and everything that they were told."""

    server: Served
    keys: Sequence[dict[str, Any]]
    right: dict[str, float]
    seen: list[tuple[float, int, dict[str, Any], str]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(4)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(20)

    def _ask(self, first: int) -> None:
        with self.server.client() as client:
            at = first
            while not self.stop.is_set():
                key = self.keys[at % len(self.keys)]
                said = client.post("/predict", json=key)
                self.seen.append(
                    (time.monotonic(), said.status_code, said.json(), key["session_id"])
                )
                at += 4

    def since(self, moment: float) -> list[tuple[int, dict[str, Any], str]]:
        return [(status, body, key) for at, status, body, key in list(self.seen) if at >= moment]

    def check(self) -> None:
        """Every 200 is what a healthy store gave, or says that it is degraded."""
        assert self.seen
        for _, status, body, key in self.seen:
            assert status in {200, 503}, body
            if status == 200 and not body.get("degraded"):
                assert body["probabilities"]["1"] == self.right[key]


def _healthy(server: Served, voucher: Voucher) -> dict[str, float]:
    with server.client() as client:
        said = client.post("/predict/batch", json={"rows": voucher.keys}).json()["rows"]
    assert not [answer for answer in said if "error" in answer or answer.get("degraded")]
    return {
        key["session_id"]: answer["probabilities"]["1"]
        for key, answer in zip(voucher.keys, said, strict=True)
    }


@contextmanager
def _under_load(voucher: Voucher, environment: str) -> Iterator[Load]:
    with _serving(voucher, environment) as server:
        right = _healthy(server, voucher)
        with Load(server, voucher.keys, right) as load:
            time.sleep(0.5)
            yield load
        load.check()


def _wait_for(load: Load, moment: float, told: Callable[[int, dict[str, Any]], bool]) -> float:
    """Wait until a client was told such a thing; how long that took."""
    until(lambda: any(told(status, body) for status, body, _ in load.since(moment)))
    return time.monotonic() - moment


def _refused(status: int, body: dict[str, Any]) -> bool:
    return status == 503 and body["type"].endswith("online-store-unavailable")


def _whole(status: int, body: dict[str, Any]) -> bool:
    return status == 200 and not body.get("degraded")


@pytest.mark.parametrize("fault", ["freeze", "kill"])
def test_a_store_that_is_gone_refuses_and_serves_again_when_it_is_back(
    voucher: Voucher, filled: Redis, fault: str
) -> None:
    with _under_load(voucher, "refusing") as load:
        getattr(filled, fault)()
        assert _wait_for(load, time.monotonic(), _refused) < 2.0
        time.sleep(1.5)
        assert load.server.get("/health/live").status_code == 200
        assert load.server.metric("lodestar_breaker_open") == 1
        filled.thaw() if fault == "freeze" else filled.start()
        back = time.monotonic()
        _wait_for(load, back, _whole)
        time.sleep(0.5)
    first = min(at for at, status, body, _ in load.seen if at > back and _whole(status, body))
    assert first - back < RECOVERS_WITHIN
    # From then on nobody is refused any more.
    assert {status for status, _, _ in load.since(back + RECOVERS_WITHIN)} <= {200}


def test_where_the_config_says_so_the_policies_answer_while_the_store_is_gone(
    lodestar: Lodestar, voucher: Voucher, filled: Redis
) -> None:
    """Age may be null, as in training, and category has a value of its own: the others are refused."""
    with _serving(voucher, "degrading") as server:
        right = _healthy(server, voucher)
        filled.kill()
        said = until(lambda: _failed(server, voucher))
        assert said.status_code == 422
        assert {item["field"] for item in said.json()["errors"]} == ALL_MISSING - {
            "category",
            "age",
        }
        filled.start()
        until(lambda: server.post(voucher.keys[0]).status_code == 200 or None)
        assert _healthy(server, voucher) == right


def _failed(server: Served, voucher: Voucher) -> httpx.Response | None:
    said = server.post(voucher.keys[0])
    return said if said.status_code != 200 else None


def test_an_emptied_store_is_told_from_zero(voucher: Voucher, filled: Redis) -> None:
    with _under_load(voucher, "refusing") as load:
        filled.client().flushall()
        moment = time.monotonic()
        _wait_for(load, moment, lambda status, _: status == 422)
        load.stop.set()
        said = load.server.post(voucher.keys[0])
        assert said.json()["type"].endswith("feature-missing")
        assert load.server.metric('lodestar_features_missing_total{feature="age"}') > 0
        load.seen = [item for item in load.seen if item[1] != 422]


def test_an_unknown_product_is_answered_by_its_policy_and_flagged(
    voucher: Voucher, filled: Redis
) -> None:
    client = filled.client()
    key = voucher.keys[0]
    with _serving(voucher, "refusing") as server:
        whole = server.post(key).json()
        client.delete(*client.scan_iter(f"product_details:category:{key['product_id']}"))
        said = server.post(key)
    # The namespace counts as unknown as a whole where one of its values is gone: no half a row.
    assert said.status_code == 422
    assert {item["field"] for item in said.json()["errors"]} == {"price", "brand"}
    assert not whole.get("degraded")


def test_a_store_that_is_restarted_over_and_over_loses_no_answer(
    voucher: Voucher, filled: Redis
) -> None:
    with _under_load(voucher, "refusing") as load:
        for _ in range(3):
            filled.kill()
            time.sleep(0.3)
            filled.start()
            moment = time.monotonic()
            _wait_for(load, moment, _whole)
    counts = {status for _, status, _, _ in load.seen}
    assert counts == {200, 503}


def test_clients_that_leave_in_the_middle_disturb_nobody(voucher: Voucher, filled: Redis) -> None:
    body = b'{"user_id":"%b","product_id":"%b","session_id":"%b"}' % tuple(
        voucher.keys[0][name].encode() for name in ("user_id", "product_id", "session_id")
    )
    head = (
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    )
    with _under_load(voucher, "refusing") as load:
        for _ in range(200):
            with load.server.line(head + body):
                pass
        moment = time.monotonic()
        until(lambda: len(load.since(moment)) > 20 or None)
    assert {status for _, status, _, _ in load.seen} == {200}
