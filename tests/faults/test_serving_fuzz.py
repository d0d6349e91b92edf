"""What a fuzzer makes of the OpenAPI document is answered as documented, and never with a 5xx."""

import hashlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conftest import Trained
from tests.served_projects import SERVED, served_run, write_served_config
from tests.serving_places import Served

pytestmark = pytest.mark.faults

KEY = "the-fuzzer-s-own-key"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
FUZZER = str(Path(sys.executable).with_name("st"))
EXAMPLES = "60"


@pytest.fixture(scope="module")
def server(trained: Callable[..., Trained]) -> Iterator[Served]:
    run = trained("breast_cancer")
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    config = f"{SERVED}serving: {{authentication: {{admin_keys: ['{digest}']}}}}\n"
    env = write_served_config(run.project, "fuzzed", config)
    with served_run(run.project, run.run_id, env=env) as server:
        yield server


def test_a_fuzzer_gets_documented_answers_and_no_5xx(server: Served, tmp_path: Path) -> None:
    seed = str(random.SystemRandom().randrange(2**31))
    print(f"seed {seed}")  # noqa: T201 -- to run the same again
    done = subprocess.run(
        [
            *(FUZZER, "run", f"{server.address}/openapi.json", "--checks", ",".join(CHECKS)),
            *("--max-examples", EXAMPLES, "--seed", seed, "--no-color"),
            *("--phases", "examples,coverage,fuzzing", "-H", f"X-API-Key: {KEY}"),
            # Every swap asks a child process of its own what the run is; it has tests of its own.
            *("--exclude-path", "/admin/swap", "--request-timeout", "60"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    assert "Failures" not in done.stdout
    assert server.get("/health/ready").status_code == 200


MALFORMED = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"\x00",
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b'{"mean_radius": ' + b"9" * 5_000 + b"}",
    b'{"mean_radius": 1e999}',
    b'{"mean_radius": -Infinity}',
    b'{"mean_radius": NaN}',
    b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    b'{"sample_id": "\\ud800"}',
    b'{"sample_id": "\\u0000"}',
    b'{"sample_id": "a", "sample_id": "b"}',
    b'{"' + b"x" * 900_000 + b'": 1}',
    b'{"rows": [' + b"{}," * 999 + b"{}]}",
    b'{"rows": [' + b"1," * 100_000 + b"1]}",
    b"\r\n\r\n",
    "{'ключ': 1}".encode("utf-16"),
]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/explain", "/invocations"])
@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_no_malformed_body_is_the_server_s_fault(server: Served, path: str, body: bytes) -> None:
    with server.client() as client:
        said = client.post(
            path, content=body, headers={"content-type": "application/json", "x-api-key": KEY}
        )
    assert 200 <= said.status_code < 500
    if said.status_code >= 400:
        assert said.headers["content-type"] == "application/problem+json"
        assert said.json()["status"] == said.status_code
        assert len(said.content) < 4_000
