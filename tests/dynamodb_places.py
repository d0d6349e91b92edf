"""A DynamoDB of the tests' own: moto's server in a process of its own, asked by the real boto3."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3
from pydantic import SecretStr
from tests.redis_places import until

from lodestar.infra.endpoint import HOST, free_port
from lodestar.settings.dynamodb import DynamoDBStore

__all__ = ["KEY", "REGION", "SECRET", "DynamoDB", "one_dynamodb", "section"]

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

    def client(self) -> Any:  # noqa: ANN401 -- boto3's own, for looking and preparing
        return boto3.client(
            "dynamodb",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

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
