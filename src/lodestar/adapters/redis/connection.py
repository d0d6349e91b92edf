"""Where a Redis is and how to reach it; no driver is loaded to say so."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from lodestar.errors import UsageError, choices

__all__ = ["RedisAddress", "RedisConnection"]

PORTS = {"single": 6379, "cluster": 6379, "sentinel": 26379}
SCHEMES = ("redis", "rediss")


@dataclass(frozen=True)
class RedisConnection:
    """`redis://user:password@host:port/0`, or `rediss://` for TLS.

    A Cluster or several Sentinels are listed with commas: `redis://:password@a:7000,b:7000`. The
    `timeout` (seconds) holds for each round trip as a whole, connecting included. `ca_file` is whom
    TLS trusts; without it, whom the system trusts. Every key begins with `prefix`.
    """

    uri: SecretStr
    mode: Literal["single", "cluster", "sentinel"] = "single"
    timeout: float = 1.0
    master_name: str | None = None
    ca_file: Path | None = None
    prefix: str = ""

    def address(self) -> "RedisAddress":
        """Take the URI apart.

        Raises:
            UsageError: it cannot be a Redis's address; the URI itself is not shown.
        """
        self._check()
        parts = urlsplit(self.uri.get_secret_value())
        if parts.scheme not in SCHEMES:
            raise UsageError(
                f"a Redis URI cannot begin with {parts.scheme!r}",
                hint="redis://user:password@host:port/0, or rediss:// for TLS",
            )
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        number = parts.path.strip("/") or "0"
        if not number.isdigit():
            raise UsageError(
                f"the Redis database {number!r} is no number", hint="redis://host:port/0"
            )
        if self.mode == "cluster" and int(number):
            raise UsageError("a Redis Cluster has no databases but 0", hint="leave it out")
        return RedisAddress(
            nodes=tuple(_node(text, PORTS[self.mode]) for text in hosts.split(",")),
            user=unquote(user) or None,
            password=SecretStr(unquote(password)) if password else None,
            database=int(number),
            tls=parts.scheme == "rediss",
        )

    def _check(self) -> None:
        if self.mode not in PORTS:
            raise UsageError(
                f"there is no Redis mode {self.mode!r}", hint=choices(self.mode, sorted(PORTS))
            )
        if self.timeout <= 0:
            raise UsageError("a Redis timeout must be above 0 seconds")
        if self.mode == "sentinel" and not self.master_name:
            raise UsageError(
                "Sentinels need the master's name", hint="set master_name, such as mymaster"
            )
        if set("{}") & set(self.prefix):
            raise UsageError("a Redis prefix cannot hold braces: a Cluster places keys by them")
        if self.ca_file is not None and not self.ca_file.is_file():
            raise UsageError(f"there is no CA file {self.ca_file}")


@dataclass(frozen=True)
class RedisAddress:
    """A URI's parts. `nodes` are (host, port): one server, or a Cluster's, or the Sentinels'."""

    nodes: tuple[tuple[str, int], ...]
    user: str | None
    password: SecretStr | None
    database: int
    tls: bool

    def __str__(self) -> str:
        return ", ".join(f"{host}:{port}" for host, port in self.nodes)


def _node(text: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or default
    except ValueError:
        host = None
    if not host:
        raise UsageError("a Redis URI lacks a host or has no number as port", hint="host:port")
    return host, port
