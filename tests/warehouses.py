"""Warehouses for the tests: servers that stand for them, spoken to by the real clients."""

import fcntl
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import snowflake.connector
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud import bigquery
from google.oauth2 import service_account

from lodestar.adapters.bigquery.reader import BigQueryReader
from lodestar.adapters.snowflake.names import given_name, stored_name
from lodestar.adapters.snowflake.reader import SnowflakeReader
from lodestar.adapters.table_rows import kinds_of
from lodestar.schema import canonical_schema
from lodestar.settings.section import EnvText
from lodestar.settings.warehouses import BigQuery, Snowflake
from lodestar.sql import parse_query

__all__ = [
    "BigQueryDataset",
    "EmulatedBigQuery",
    "EmulatedSnowflake",
    "SnowflakeSchema",
    "bigquery_emulator",
    "snowflake_emulator",
]

ROOT = Path(__file__).resolve().parents[1]
EMULATORS = ROOT / "tests" / "emulators"
PATIENCE = 60  # seconds


def new_key() -> rsa.RSAPrivateKey:
    """A key pair to sign logins with."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_pem(key: rsa.RSAPrivateKey, passphrase: str | None = None) -> str:
    """The private half as a file would hold it."""
    sealed = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    return key.private_bytes(*form, sealed).decode()


def public_pem(key: rsa.RSAPrivateKey) -> str:
    """The public half."""
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key.public_key().public_bytes(*form).decode()


@contextmanager
def served(script: Path, variables: Mapping[str, str], log: Path) -> Iterator[str]:
    """Run a server of tests/emulators on a free port of 127.0.0.1; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", script],
            env={**os.environ, **variables, "EMULATOR_SOCKET": str(listener.fileno())},
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _await(process, address, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _asked(method: str, url: str, body: object = None) -> httpx.Response:
    # To load certificates would take longer than the answer.
    answer = httpx.request(method, url, json=body, timeout=PATIENCE, verify=False)  # noqa: S501 -- plain HTTP
    return answer.raise_for_status()


def _await(process: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    """The socket takes connections before the server answers them."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            _asked("GET", f"{address}/control")
        except httpx.TransportError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the emulator does not start:\n{log.read_text()}") from None
            time.sleep(0.1)
        else:
            return


def packages_of(emulator: Path) -> Path:
    """What an emulator needs laid over our own packages, by the hashes in its requirements.txt."""
    wanted = emulator / "requirements.txt"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]
    target = Path(sys.prefix) / "emulators" / f"{emulator.name}-{digest}"
    target.parent.mkdir(exist_ok=True)
    with (target.parent / f"{emulator.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            aside = target.with_suffix(".tmp")
            shutil.rmtree(aside, ignore_errors=True)
            uv = (Path(sys.prefix) / "bin" / "uv", "pip", "install", "--quiet", "--no-deps")
            source = ("--require-hashes", "-r", wanted, "--target", aside)
            subprocess.run([*uv, *source, "--python", sys.executable], check=True)
            aside.rename(target)
    return target


@dataclass
class EmulatedSnowflake:
    """A server that stands for one account, and who may log in."""

    address: str
    key: rsa.RSAPrivateKey = field(repr=False)
    account: str = "acme"
    user: str = "LODESTAR"
    password: str = field(default="canary-password-55aa", repr=False)
    oauth_token: str = field(default="canary-token-55aa", repr=False)
    expired_token: str = field(default="canary-expired-55aa", repr=False)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def faults(self, **faults: object) -> None:
        """Set what goes wrong from now on, and forget what was said."""
        _asked("POST", f"{self.address}/control", faults)

    def said(self) -> list[dict[str, Any]]:
        """Logins and statements since then."""
        found: list[dict[str, Any]] = _asked("GET", f"{self.address}/control").json()
        return found

    def statements(self) -> list[str]:
        """The SQL of the statements that ran."""
        return [one["sql"] for one in self.said() if "sql" in one and not one["describe"]]


@contextmanager
def snowflake_emulator(folder: Path) -> Iterator[EmulatedSnowflake]:
    """Start one; databases are made as sessions name them."""
    key = new_key()
    known = EmulatedSnowflake("", key)
    account = {
        name: getattr(known, name)
        for name in ("account", "user", "password", "oauth_token", "expired_token")
    }
    account["public_key"] = public_pem(key)
    emulator = EMULATORS / "snowflake"
    variables = {
        "EMULATED_ACCOUNT": json.dumps(account),
        "PYTHONPATH": str(packages_of(emulator)),
    }
    with served(emulator / "server.py", variables, folder / "snowflake.log") as address:
        yield EmulatedSnowflake(address, key)


@dataclass
class SnowflakeSchema:
    """A schema of its own for one test, and how to fill and read it plainly."""

    server: EmulatedSnowflake
    name: str = field(default_factory=lambda: f"T{secrets.token_hex(6).upper()}")

    def config(self, **changes: object) -> Snowflake:
        """What an adapter connects with."""
        values = {
            "account": self.server.account,
            "user": self.server.user,
            "password": EnvText(self.server.password),
            "database": "shop",
            "schema_name": self.name,
            "endpoint_url": self.server.address,
            "statement_timeout": 30,
            "login_timeout": 10,
            "network_timeout": 10,
            "application_name": "lodestar test",
        }
        given = {**values, **changes}
        return Snowflake.model_validate(
            {name: value for name, value in given.items() if value is not None}
        )

    def reader(
        self,
        sql: str,
        params: Mapping[str, str] | None = None,
        *,
        dialect: str = "postgres",
        **changes: object,
    ) -> SnowflakeReader:
        """Read by a query."""
        query = parse_query(sql, dialect, where="x.sql")
        return SnowflakeReader(self.config(**changes), ROOT, query, params or {})

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement as the plain driver does."""
        with self.connection() as connection, connection.cursor() as cursor:
            return list(cursor.execute(sql).fetchall())

    def connection(self) -> Any:  # noqa: ANN401 -- the driver's
        """A session of the plain driver."""
        return snowflake.connector.connect(
            account=self.server.account,
            user=self.server.user,
            password=self.server.password,
            server_url=self.server.address,
            database="SHOP",
            schema=self.name,
            enable_server_session_keep_alive_auto_detection=False,
        )

    def put(self, table: pa.Table, name: str) -> None:
        """Make a table of these rows, in order."""
        kinds = {"bool": "BOOLEAN", "int": "NUMBER(38,0)", "float": "FLOAT", "string": "TEXT"}
        kinds |= {"date": "DATE", "timestamp": "TIMESTAMP_LTZ"}
        plain = {
            column.name: "TIMESTAMP_NTZ"
            for column in table.schema
            if pa.types.is_timestamp(column.type) and column.type.tz is None
        }
        types = {
            name: kinds[kind] for name, kind in kinds_of(canonical_schema(table.schema)).items()
        }
        types |= plain
        stored = [f'"{stored_name(column)}"' for column in table.column_names]
        plainly = [f"C{at}" for at in range(table.num_columns)]
        file = io.BytesIO()
        pq.write_table(table.rename_columns(plainly), file, coerce_timestamps="us")
        columns = ", ".join(f"{c} {kind}" for c, kind in zip(plainly, types.values(), strict=True))
        chosen = ", ".join(f"{c} AS {n}" for c, n in zip(plainly, stored, strict=True))
        with self.connection() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE rows_to_be ({columns})")
            stage = f"source_{secrets.token_hex(4)}"  # the emulator keeps temporary ones
            cursor.execute(f"CREATE TEMPORARY STAGE {stage}")
            cursor.execute(
                f"PUT 'file:///rows.parquet' @{stage} AUTO_COMPRESS = FALSE OVERWRITE = TRUE",
                file_stream=file,
            )
            cursor.execute(
                f"COPY INTO rows_to_be FROM @{stage} FILE_FORMAT = (TYPE = PARQUET "
                "USE_LOGICAL_TYPE = TRUE) MATCH_BY_COLUMN_NAME = CASE_SENSITIVE"
            )
            made = f'CREATE TABLE "{stored_name(name)}" AS '
            cursor.execute(f"{made} SELECT {chosen} FROM rows_to_be")  # noqa: S608 -- quoted
            cursor.execute("DROP TABLE rows_to_be")

    def tables(self) -> list[str]:
        """The names of the schema's tables."""
        sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = "
        return sorted(given_name(name) for (name,) in self.run(f"{sql}'{self.name}'"))


@dataclass
class EmulatedBigQuery:
    """A server that stands for BigQuery, and a service account's file that it knows."""

    address: str
    credentials_file: Path
    storage: str = ""
    project: str = "acme-shop"

    def faults(self, **faults: object) -> None:
        """Set what goes wrong from now on, and forget what was said."""
        _asked("POST", f"{self.address}/control", faults)

    def said(self) -> list[dict[str, Any]]:
        """Queries and loads since then."""
        found: list[dict[str, Any]] = _asked("GET", f"{self.address}/control").json()
        return found


@contextmanager
def bigquery_emulator(folder: Path) -> Iterator[EmulatedBigQuery]:
    """Start one, without datasets."""
    key = new_key()
    variables = {
        "EMULATED_ACCOUNT": json.dumps({"public_key": public_pem(key)}),
        "PYTHONPATH": str(ROOT),
    }
    script = EMULATORS / "bigquery" / "server.py"
    with served(script, variables, folder / "bigquery.log") as address:
        path = folder / "service-account.json"
        path.write_text(json.dumps(account_file(key, address)))
        storage = _asked("GET", f"{address}/place").json()["storage"]
        yield EmulatedBigQuery(address, path, storage)


def account_file(key: rsa.RSAPrivateKey, address: str) -> dict[str, str]:
    """What Google gives out for a service account's key."""
    return {
        "type": "service_account",
        "project_id": EmulatedBigQuery.project,
        "private_key_id": "1",
        "private_key": private_pem(key),
        "client_email": "lodestar@acme-shop.example",
        "client_id": "1",
        "token_uri": f"{address}/token",
    }


@dataclass
class BigQueryDataset:
    """A dataset of its own for one test, and how to fill and read it plainly."""

    server: EmulatedBigQuery
    name: str = field(default_factory=lambda: f"test_{secrets.token_hex(6)}")
    made: bool = False

    def __post_init__(self) -> None:
        if not self.made:
            with self.client() as client:
                client.create_dataset(self.name)

    def config(self, **changes: object) -> BigQuery:
        """What an adapter connects with."""
        values = {
            "project": self.server.project,
            "dataset": self.name,
            "credentials_file": str(self.server.credentials_file),
            "storage_api": False,
            "endpoint_url": self.server.address,
            "job_timeout": 30,
            "request_timeout": 20,
            "retry_timeout": 20,
            "application_name": "lodestar test",
        }
        given = {**values, **changes}
        return BigQuery.model_validate(
            {name: value for name, value in given.items() if value is not None}
        )

    def reader(
        self,
        sql: str,
        params: Mapping[str, str] | None = None,
        *,
        dialect: str = "postgres",
        **changes: object,
    ) -> BigQueryReader:
        """Read by a query."""
        query = parse_query(sql, dialect, where="x.sql")
        return BigQueryReader(self.config(**changes), ROOT, query, params or {})

    @contextmanager
    def client(self) -> Iterator[bigquery.Client]:
        """The plain client."""
        credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]  # not annotated there
            self.server.credentials_file
        )
        client = bigquery.Client(
            project=self.server.project,
            credentials=credentials,
            client_options={"api_endpoint": self.server.address},
        )
        try:
            yield client
        finally:
            client.close()  # type: ignore[no-untyped-call]  # not annotated there

    def put(self, table: pa.Table, name: str) -> None:
        """Make a table of these rows, in order."""
        kinds = {"bool": "BOOL", "int": "INT64", "float": "FLOAT64", "string": "STRING"}
        kinds |= {"date": "DATE", "timestamp": "TIMESTAMP"}
        types = {
            name: kinds[kind] for name, kind in kinds_of(canonical_schema(table.schema)).items()
        }
        types |= {
            column.name: "DATETIME"
            for column in table.schema
            if pa.types.is_timestamp(column.type) and column.type.tz is None
        }
        file = io.BytesIO()
        pq.write_table(table, file, coerce_timestamps="us")
        place = f"{self.server.project}.{self.name}.{name}"
        settings = bigquery.LoadJobConfig(source_format="PARQUET")
        with self.client() as client:
            fields = [bigquery.SchemaField(column, kind) for column, kind in types.items()]
            client.create_table(bigquery.Table(place, schema=fields))
            client.load_table_from_file(file, place, rewind=True, job_config=settings).result()

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement as the plain client does."""
        with self.client() as client:
            settings = bigquery.QueryJobConfig(default_dataset=f"{self.server.project}.{self.name}")
            return [tuple(row.values()) for row in client.query(sql, job_config=settings).result()]

    def tables(self) -> list[str]:
        """The names of the dataset's tables."""
        with self.client() as client:
            return sorted(one.table_id for one in client.list_tables(self.name))
