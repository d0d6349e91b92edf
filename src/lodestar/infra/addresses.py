"""The env file `.lodestar/infra.env`: where each server listens, with its password, chosen once."""

import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from lodestar.errors import ExternalError, SettingsError
from lodestar.infra.endpoint import HOST, Endpoint, free_port
from lodestar.settings.env_file import ENV_FILE, FEAST, MLFLOW, POSTGRES, REDIS, with_env_file

__all__ = ["AddressFile", "Addresses", "write_private"]

SERVERS = 3
_PLAIN = re.compile(r"^[A-Za-z0-9_-]+$")
HEAD = """\
# Made by `lodestar infra`: where its servers are, and their passwords. Keep it to yourself.
# The first four are for config/*.yaml; compose.yaml reads the others.
"""


@dataclass(frozen=True)
class Addresses:
    """Where the three servers listen."""

    postgres: Endpoint
    redis: Endpoint
    mlflow_port: int

    @classmethod
    def fresh(cls) -> "Addresses":
        """Take three free ports and make up passwords."""
        made = cls(Endpoint.fresh(), Endpoint.fresh(), free_port())
        distinct = {made.postgres.port, made.redis.port, made.mlflow_port}
        return made if len(distinct) == SERVERS else cls.fresh()

    def variables(self) -> dict[str, str]:
        """As environment variables, secrets in clear."""
        postgres = self.postgres.password.get_secret_value()
        redis = self.redis.password.get_secret_value()
        return {
            POSTGRES: f"postgresql://lodestar:{postgres}@{self.postgres.address}/lodestar",
            FEAST: f"postgresql://lodestar:{postgres}@{self.postgres.address}/feast",
            REDIS: f"redis://:{redis}@{self.redis.address}/0",
            MLFLOW: f"http://{HOST}:{self.mlflow_port}",
            "LODESTAR_POSTGRES_PORT": str(self.postgres.port),
            "LODESTAR_POSTGRES_PASSWORD": postgres,
            "LODESTAR_REDIS_PORT": str(self.redis.port),
            "LODESTAR_REDIS_PASSWORD": redis,
            "LODESTAR_MLFLOW_PORT": str(self.mlflow_port),
        }


class AddressFile:
    """Reads and writes the env file; only its owner may read it."""

    def __init__(self, project: Path) -> None:
        self.path = project / ENV_FILE
        self._project = project

    def variables(self) -> dict[str, str]:
        """What it sets; nothing where it is not there.

        Raises:
            SettingsError: it cannot be read.
        """
        return with_env_file({}, self._project)

    def read(self) -> Addresses | None:
        """The addresses in it; none where it is not there.

        Raises:
            SettingsError: a URI is missing or not one that a server of ours can have.
        """
        found = self.variables()
        if not found and not self.path.exists():
            return None
        return Addresses(
            self._endpoint(found, POSTGRES), self._endpoint(found, REDIS), self._port(found, MLFLOW)
        )

    def write(self, addresses: Addresses) -> None:
        """Put it there whole, readable for its owner only."""
        lines = (f"{name}={value}\n" for name, value in addresses.variables().items())
        write_private(self.path, HEAD + "".join(lines))

    def _endpoint(self, found: dict[str, str], name: str) -> Endpoint:
        password = self._split(found, name).password
        if not password or not _PLAIN.match(password):
            raise self._wrong(name, "has no password of letters, digits, - and _")
        return Endpoint(self._port(found, name), SecretStr(password))

    def _port(self, found: dict[str, str], name: str) -> int:
        split = self._split(found, name)
        try:
            port = split.port
        except ValueError as error:
            raise self._wrong(name, "has no port that can be") from error
        if port is None or split.hostname != HOST:
            raise self._wrong(name, f"is not at {HOST} with a port")
        return port

    def _split(self, found: dict[str, str], name: str) -> SplitResult:
        try:
            return urlsplit(found[name])
        except KeyError as error:
            raise self._wrong(name, "is missing") from error
        except ValueError as error:
            raise self._wrong(name, "is no URI") from error

    def _wrong(self, name: str, what: str) -> SettingsError:
        return SettingsError.one(
            f"{name} {what}",
            where=ENV_FILE,
            hint="put the file back as it was, or delete it: `lodestar infra up` then makes new "
            "ports and passwords, and keeps the data",
        )


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all.

    Raises:
        ExternalError: it cannot be written.
    """
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    except OSError as error:
        raise ExternalError(f"cannot be written: {error.strerror}", where=str(path)) from error
    finally:
        made.unlink(missing_ok=True)
