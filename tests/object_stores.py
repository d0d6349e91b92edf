"""Emulators of object stores in processes of their own, and plain ways to put and see objects there."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from lodestar.infra.endpoint import free_port
from lodestar.settings.config import Data

__all__ = [
    "AzureBox",
    "Box",
    "GcsBox",
    "S3Box",
    "azure_endpoint",
    "azurite",
    "gcs_emulator",
    "gcs_endpoint",
    "moto",
    "s3_endpoint",
]

DEADLINE = 60
EMULATED_S3 = Path(__file__).with_name("emulators") / "s3" / "server.py"
AZURITE = Path(sys.prefix) / "azurite"
ACCOUNT = "devstoreaccount1"
# Azurite's own, the same for everybody: https://github.com/Azure/Azurite#default-storage-account
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@contextmanager
def moto() -> Iterator[str]:
    """The endpoint of moto's server."""
    port = free_port()
    command = (sys.executable, str(EMULATED_S3), "-H", "127.0.0.1", "-p", str(port))
    with _running(command, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def gcs_emulator() -> Iterator[str]:
    """The endpoint of gcp-storage-emulator."""
    port = free_port()
    script = (
        "import sys, threading\n"
        "from gcp_storage_emulator.server import create_server\n"
        "create_server('127.0.0.1', int(sys.argv[1]), in_memory=True).run()"
    )
    with _running((sys.executable, "-c", script, str(port)), port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def azurite() -> Iterator[str]:
    """The endpoint of Azurite's account; `make test` installs it from the lock in tests/emulators."""
    port = free_port()
    program = AZURITE / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    assert program.is_file(), "Azurite is not installed: make .venv/.installed-azurite"
    command = (
        *("node", str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *("--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"),
    )
    with _running(command, port):
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    with moto() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def gcs_endpoint() -> Iterator[str]:
    with gcs_emulator() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def azure_endpoint() -> Iterator[str]:
    with azurite() as endpoint:
        yield endpoint


@contextmanager
def _running(command: Sequence[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
    )
    try:
        _await(process, f"http://127.0.0.1:{port}/")
        yield
    finally:
        process.kill()
        process.wait(DEADLINE)


def _await(process: "subprocess.Popen[bytes]", url: str) -> None:
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        assert process.poll() is None, "the emulator ended"
        try:
            urlopen(url, timeout=5).close()  # noqa: S310 -- http, from above
        except HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(url)


@dataclass(frozen=True)
class Box:
    """A bucket of its own in one emulator."""

    endpoint: str
    name: str = field(default_factory=lambda: f"box-{secrets.token_hex(6)}")

    scheme = ""

    def uri(self, key: str) -> str:
        """The URI of an object in it."""
        return f"{self.scheme}://{self.name}/{key}"

    def data(self, **section: object) -> Data:
        """The config's data section, with credentials for the emulator."""
        place = {"adapter": "duckdb", "root": "data", "snapshots": "data/snapshots"}
        return Data.model_validate({**place, **self.sections(**section)}, strict=False)

    def sections(self, **section: object) -> dict[str, dict[str, object]]:
        """The store's section in it, as plain values."""
        raise NotImplementedError

    def make(self) -> None:
        """Create the bucket."""
        raise NotImplementedError

    def put(self, key: str, content: bytes) -> None:
        """Put an object there in one go."""
        raise NotImplementedError

    def get(self, key: str) -> bytes | None:
        """What a plain client reads; None where there is nothing."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """The names of the objects that readers see."""
        raise NotImplementedError

    def unfinished(self) -> list[str]:
        """The keys of uploads that are neither complete nor aborted."""
        raise NotImplementedError


class S3Box(Box):
    """A bucket in moto, seen by boto3."""

    scheme = "s3"

    @property
    def client(self) -> Any:  # noqa: ANN401 -- boto3 makes its classes at run time
        """A plain client."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 -- moto takes any
        )

    def sections(self, **section: object) -> dict[str, dict[str, object]]:
        keys = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}
        return {"s3": {"endpoint_url": self.endpoint, **keys, **section}}

    def make(self) -> None:
        self.client.create_bucket(Bucket=self.name)

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def get(self, key: str) -> bytes | None:
        client = self.client
        try:
            content: bytes = client.get_object(Bucket=self.name, Key=key)["Body"].read()
        except client.exceptions.NoSuchKey:
            return None
        return content

    def names(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name)
        return [one["Key"] for one in found.get("Contents", [])]

    def unfinished(self) -> list[str]:
        found = self.client.list_multipart_uploads(Bucket=self.name)
        return [one["Key"] for one in found.get("Uploads", [])]


class GcsBox(Box):
    """A bucket in gcp-storage-emulator, seen by Google's own client."""

    scheme = "gs"

    @property
    def bucket(self) -> Any:  # noqa: ANN401 -- the library has no types
        """A plain client's bucket."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        client = storage.Client(
            project="test",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]  # not annotated there
            client_options={"api_endpoint": self.endpoint},
        )
        return client.bucket(self.name)

    def sections(self, **section: object) -> dict[str, dict[str, object]]:
        return {"gcs": {"endpoint_url": self.endpoint, "anonymous": True, **section}}

    def make(self) -> None:
        self.bucket.create()

    def put(self, key: str, content: bytes) -> None:
        self.bucket.blob(key).upload_from_string(content)

    def get(self, key: str) -> bytes | None:
        blob = self.bucket.blob(key)
        return blob.download_as_bytes() if blob.exists() else None

    def names(self) -> list[str]:
        return [blob.name for blob in self.bucket.list_blobs()]

    def unfinished(self) -> list[str]:
        return []


class AzureBox(Box):
    """A container in Azurite, seen by Azure's own client."""

    scheme = "az"

    @property
    def client(self) -> Any:  # noqa: ANN401 -- an emulator's client among others
        """A plain client's container."""
        from azure.storage.blob import ContainerClient

        return ContainerClient(self.endpoint, self.name, credential=ACCOUNT_KEY)

    def sections(self, **section: object) -> dict[str, dict[str, object]]:
        credentials = {"account": ACCOUNT, "account_key": ACCOUNT_KEY}
        return {"azure": {"endpoint_url": self.endpoint, **credentials, **section}}

    def make(self) -> None:
        with self.client as client:
            client.create_container()

    def put(self, key: str, content: bytes) -> None:
        with self.client as client:
            client.upload_blob(key, content, overwrite=True)

    def get(self, key: str) -> bytes | None:
        with self.client as client:
            blob = client.get_blob_client(key)
            return blob.download_blob().readall() if blob.exists() else None

    def names(self) -> list[str]:
        with self.client as client:
            return [blob.name for blob in client.list_blobs()]

    def unfinished(self) -> list[str]:
        with self.client as client:
            found = client.list_blobs(include=["uncommittedblobs"])
            return sorted({blob.name for blob in found} - set(self.names()))
