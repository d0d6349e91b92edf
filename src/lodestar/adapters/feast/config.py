"""Where a Feast project's stores are, in Feast's own words; nothing of Feast is loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import SecretStr

from lodestar.adapters.redis.connection import RedisConnection
from lodestar.errors import UsageError, choices
from lodestar.settings.dynamodb import DynamoDBStore, DynamoDBTables

__all__ = [
    "TABLE_TEMPLATE",
    "FeastStores",
    "WarehouseTables",
    "dynamodb_of",
    "redis_connection_of",
    "repo_config",
    "secrets_of",
    "sqlite_below",
    "table_template",
]

POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")
SQLITE = "sqlite:///"
# Feast waits for its registry as long as the driver does, which is for ever.
REGISTRY_SECONDS = 10
STATEMENT_SECONDS = 30
TABLE_TEMPLATE = "{project}.{table_name}"  # Feast's own
REDIS_TYPES: dict[Literal["single", "cluster", "sentinel"], str] = {
    "single": "redis",
    "cluster": "redis_cluster",
    "sentinel": "redis_sentinel",
}


@dataclass(frozen=True)
class WarehouseTables:
    """A warehouse's tables: what names of tables without a schema (or dataset) mean, as it is kept.

    `database` is BigQuery's project. No login is here: Feast does not read the tables.
    """

    kind: Literal["bigquery", "snowflake"]
    database: str
    schema: str | None


@dataclass(frozen=True)
class FeastStores:
    """One environment's Feast project.

    `registry` is `postgresql://…` or `sqlite:///path`; `offline` is `postgresql://…`, the folder of the
    parquet files, or a warehouse; `online` is a Redis, a DynamoDB, or `postgresql://…` or
    `sqlite:///path`, which answer within `timeout` seconds or count as failed.
    """

    project: str
    registry: SecretStr
    offline: SecretStr | Path | WarehouseTables
    online: RedisConnection | DynamoDBStore | SecretStr
    sslmode: str = "prefer"
    timeout: float = 1.0


def repo_config(stores: FeastStores) -> dict[str, Any]:
    """What `feature_store.yaml` would say.

    Raises:
        UsageError: a URI is none that Feast knows.
    """
    return {
        "project": stores.project,
        "provider": "local",
        "registry": {
            "registry_type": "sql",
            "path": _registry(stores.registry),
            "cache_ttl_seconds": 60,
            # A namespace stays readable while its rows are brought up to date.
            "serve_features_while_materializing": True,
            "sqlalchemy_config_kwargs": {
                "echo": False,
                "pool_pre_ping": True,
                "connect_args": _registry_arguments(stores.registry),
            },
        },
        "offline_store": _offline(stores),
        "online_store": _online(stores),
        "entity_key_serialization_version": 3,
    }


def secrets_of(stores: FeastStores) -> list[str]:
    """Passwords that no message may hold."""
    uris = [stores.registry, stores.offline, stores.online]
    found = []
    for uri in uris:
        secret = uri.uri if isinstance(uri, RedisConnection) else uri
        if isinstance(secret, SecretStr):
            login = urlsplit(secret.get_secret_value()).netloc.rpartition("@")[0]
            password = login.partition(":")[2]
            found += [password, unquote(password)]
    return [password for password in found if password]


def _registry(uri: SecretStr) -> str:
    text = uri.get_secret_value()
    scheme, _, rest = text.partition("://")
    if scheme in POSTGRES:
        return f"postgresql+psycopg://{rest}"
    if scheme == "sqlite":
        return text
    raise UsageError(
        f"a Feast registry cannot begin with {scheme!r}",
        hint="postgresql://user:password@host/database or sqlite:///path",
    )


def _registry_arguments(uri: SecretStr) -> dict[str, Any]:
    parts = urlsplit(uri.get_secret_value())
    if parts.scheme == "sqlite":
        return {"timeout": REGISTRY_SECONDS}
    given = parse_qs(parts.query)
    ours = {
        "connect_timeout": REGISTRY_SECONDS,
        "application_name": "lodestar feast registry",
        "options": f"-c statement_timeout={STATEMENT_SECONDS * 1000}",
    }
    return {name: value for name, value in ours.items() if name not in given}


def sqlite_below(uri: SecretStr, project: Path) -> SecretStr:
    """A relative `sqlite:///path` as one below the project; any other URI as it is."""
    text = uri.get_secret_value()
    if not text.startswith(SQLITE):
        return uri
    return SecretStr(f"{SQLITE}{project / text.removeprefix(SQLITE)}")


def _offline(stores: FeastStores) -> dict[str, Any]:
    if not isinstance(stores.offline, SecretStr):
        return {
            "type": "dask"
        }  # none of it is ever asked; a warehouse's would want drivers of its own
    return {"type": "postgres", **_postgres(stores.offline, stores)}


def _online(stores: FeastStores) -> dict[str, Any]:
    if isinstance(stores.online, RedisConnection):
        return _redis(stores.online)
    if isinstance(stores.online, DynamoDBStore):
        return _dynamodb(stores.online)
    text = stores.online.get_secret_value()
    if text.startswith(SQLITE):
        return {"type": "sqlite", "path": text.removeprefix(SQLITE)}
    return {"type": "postgres", **_postgres(stores.online, stores)}


def _postgres(uri: SecretStr, stores: FeastStores) -> dict[str, Any]:
    parts = urlsplit(uri.get_secret_value())
    if parts.scheme not in POSTGRES or not parts.hostname:
        raise UsageError(
            f"a store of Feast cannot begin with {parts.scheme!r} here",
            hint="postgresql://user:password@host:5432/database, or online sqlite:///path or redis",
        )
    options = parse_qs(parts.query)
    return {
        "host": parts.hostname,
        "port": parts.port or 5432,
        "database": unquote(parts.path.strip("/")),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "sslmode": options.get("sslmode", [stores.sslmode])[0],
    }


def _redis(connection: RedisConnection) -> dict[str, Any]:
    address = connection.address()
    words: dict[str, Any] = {
        "socket_timeout": connection.timeout,
        "socket_connect_timeout": connection.timeout,
    }
    if connection.mode != "cluster":
        words["db"] = address.database
    if address.user:
        words["username"] = address.user
    if address.password:
        words["password"] = address.password.get_secret_value()
    if address.tls:
        words["ssl"] = True
        if connection.ca_file:
            words["ssl_ca_certs"] = str(connection.ca_file)
    # Feast splits at commas and reads each value as JSON: a text that looks like a number, or that
    # holds a comma, survives that only as JSON text without one.
    said = [
        f"{key}={json.dumps(value).replace(',', chr(92) + 'u002c')}" for key, value in words.items()
    ]
    return {
        "type": "redis",
        "redis_type": REDIS_TYPES[connection.mode],
        "full_scan_for_deletion": False,  # ours removes this project's rows alone
        "connection_string": ",".join([f"{host}:{port}" for host, port in address.nodes] + said),
        **({"sentinel_master": connection.master_name} if connection.master_name else {}),
    }


def table_template(store: DynamoDBStore) -> str:
    """How Feast makes a table's name of its project and of a view's name."""
    return f"{store.table_prefix}{TABLE_TEMPLATE}"


def _dynamodb(store: DynamoDBStore) -> dict[str, Any]:
    return {
        "type": "dynamodb",
        "region": store.region,
        "endpoint_url": store.endpoint_url,
        "consistent_reads": store.consistent_reads,
        "table_name_template": table_template(store),
        # Feast takes away all tags that it does not know of.
        "tags": {"managed_by": "lodestar", **store.tables.tags},
    }


def dynamodb_of(online: Mapping[str, Any], timeout: float) -> DynamoDBStore:
    """Read Feast's own DynamoDB settings, as `feature_store.yaml` has them; its tables stay Feast's."""
    return DynamoDBStore(
        region=online.get("region"),
        endpoint_url=online.get("endpoint_url"),
        consistent_reads=bool(online.get("consistent_reads", False)),
        timeout=timeout,
        tables=DynamoDBTables(create=False),
    )


def redis_connection_of(online: Mapping[str, Any], timeout: float) -> RedisConnection:
    """Read Feast's own Redis settings, as `feature_store.yaml` has them.

    Raises:
        UsageError: it is of a kind that Feast does not know either.
    """
    words = str(online.get("connection_string", "localhost:6379")).split(",")
    nodes = [word for word in words if "=" not in word]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    user, password = (_quoted(given.get(name, "")) for name in ("username", "password"))
    login = f"{user}:{password}@" if user or password else ""
    scheme = "rediss" if given.get("ssl", "").lower() == "true" else "redis"
    modes = {value: key for key, value in REDIS_TYPES.items()}
    kind = str(online.get("redis_type", "redis"))
    if kind not in modes:
        raise UsageError(f"Feast has no redis_type {kind!r}", hint=choices(kind, sorted(modes)))
    ca_file = given.get("ssl_ca_certs")
    return RedisConnection(
        SecretStr(f"{scheme}://{login}{','.join(nodes)}/{given.get('db', '0')}"),
        mode=modes[kind],
        timeout=timeout,
        master_name=str(online.get("sentinel_master", "mymaster")),
        ca_file=Path(_plain(ca_file)) if ca_file else None,
    )


def _plain(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else text


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(_plain(text), safe="")
