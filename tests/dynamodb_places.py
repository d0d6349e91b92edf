"""A DynamoDB of the tests' own: moto's server in a process of its own, asked by the real boto3."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3
from pydantic import SecretStr
from tests.redis_places import until

from lodestar.infra.endpoint import HOST, free_port
from lodestar.settings.dynamodb import DynamoDBStore
from lodestar.settings.features import FeatureView

__all__ = [
    "KEY",
    "REGION",
    "SECRET",
    "DynamoDB",
    "client_of",
    "make_tables",
    "one_dynamodb",
    "section",
    "tables_of",
]

REGION = "eu-central-1"
KEY, SECRET = "AKIATESTTESTTESTTEST", "Geheim-hunter2/of+a+test"
SEVERAL_SECONDS = 20.0  # moto needs a tenth of a second for a hundred items


@dataclass
class DynamoDB:
    """moto's server; `freeze` and `kill` are faults to inject."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)],
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
            )
        until(self._answers, "moto's server answers")

    def client(self) -> Any:  # noqa: ANN401 -- boto3's own
        return client_of(self.url)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)
            self.process = None

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def _answers(self) -> bool:
        assert self.process is not None
        log = self.folder / "log"
        assert self.process.poll() is None, log.read_text(encoding="utf-8")
        with urlopen(f"{self.url}/moto-api/", timeout=5) as answer:  # noqa: S310 -- of this machine
            return bool(answer.status == 200)


def client_of(url: str) -> Any:  # noqa: ANN401 -- boto3's own
    """The plain driver, for looking and preparing."""
    return boto3.client(
        "dynamodb",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )


def tables_of(client: Any) -> set[str]:  # noqa: ANN401 -- boto3's own
    """The names of all tables that there are, page by page: other tests have theirs too."""
    pages = client.get_paginator("list_tables").paginate()
    return {name for page in pages for name in page["TableNames"]}


def make_tables(
    client: Any,  # noqa: ANN401 -- boto3's own
    prefix: str,
    views: Sequence[FeatureView],
    key: str = "@entity",
) -> None:
    """Make the tables of namespaces plainly, as others than us may have."""
    for view in views:
        client.create_table(
            TableName=f"{prefix}{view.namespace}",
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )


@contextmanager
def one_dynamodb(folder: Path, **environment: str) -> Iterator[DynamoDB]:
    """A server that ends with the test."""
    server = DynamoDB(folder, environment)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def section(url: str, **values: Any) -> DynamoDBStore:  # noqa: ANN401 -- of DynamoDBStore
    """The config's section for a server of a test."""
    given = {
        "region": REGION,
        "endpoint_url": url,
        "access_key_id": SecretStr(KEY),
        "secret_access_key": SecretStr(SECRET),
        "timeout": SEVERAL_SECONDS,
        **values,
    }
    return DynamoDBStore.model_validate(given)


Answer = tuple[int, Any]


class Scripted(ThreadingHTTPServer):
    """Stands before moto's server, and answers itself what a test says: an error, or less than all.

    `script` gets DynamoDB's name of the operation and the request, and may return a status and a body
    (bytes as they are, else as JSON). `asked` is every operation in turn; `headers` go with answers.
    """

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__((HOST, 0), _Handler)
        self.upstream = url
        self.script: Callable[[str, dict[str, Any]], Answer | None] = lambda operation, request: (
            None
        )
        self.asked: list[str] = []
        self.headers: dict[str, str] = {}
        self.request_id = True  # every answer of DynamoDB has one

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        operation = self.headers["X-Amz-Target"].split(".")[1]
        self.server.asked.append(operation)
        answer = self.server.script(operation, json.loads(body))
        status, content = answer if answer is not None else self._forwarded(body)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(data)))
        if self.server.request_id:
            self.send_header("x-amzn-RequestId", str(len(self.server.asked)))
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _forwarded(self, body: bytes) -> Answer:
        names = ("X-Amz-Target", "Content-Type", "Authorization", "X-Amz-Date")
        headers = {name: self.headers[name] for name in names if name in self.headers}
        request = Request(self.server.upstream, body, headers)  # noqa: S310 -- of this machine
        try:
            with urlopen(request, timeout=20) as answer:  # noqa: S310 -- as above
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its own name
        """Nothing is said."""


def refusal(code: str, message: str = "no") -> Answer:
    """An error as DynamoDB answers it."""
    return 400, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message}


@contextmanager
def scripted(url: str) -> Iterator[Scripted]:
    with Scripted(url) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(5)
