"""One Redis of ours: it asks for a password and keeps its data over a restart."""

import os
import signal
from pathlib import Path

from pydantic import SecretStr

from lodestar.infra.addresses import write_private
from lodestar.infra.endpoint import HOST, Endpoint
from lodestar.infra.process import ServerProcess, await_ready
from lodestar.infra.programs import driver, redis_program

__all__ = ["RedisServer"]

WITHIN = 30.0
PROBE_TIMEOUT = 2.0


class RedisServer:
    """A Redis server with its data in `home/redis`, on 127.0.0.1 only."""

    name = "redis"

    def __init__(self, home: Path, endpoint: Endpoint) -> None:
        self.folder = home / self.name
        self.endpoint = endpoint
        self.process = ServerProcess(self.name, home=home, folder=self.folder)

    @property
    def address(self) -> str:
        """Host and port."""
        return self.endpoint.address

    @property
    def uri(self) -> SecretStr:
        """`redis://:password@127.0.0.1:port/0`."""
        return SecretStr(
            f"redis://:{self.endpoint.password.get_secret_value()}@{self.endpoint.address}/0"
        )

    def start(self, *, within: float = WITHIN) -> None:
        """Start it and wait until it answers to its password; what fails is stopped again.

        Raises:
            ExternalError: it is not installed, or not ready in time.
        """
        driver("redis")
        program = redis_program()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = self.folder / "redis.conf"
        write_private(config, self._config())
        try:
            self.process.start([str(program), str(config)], environment=_environment())
            await_ready(self.process, self.problem, within=within)
        except BaseException:
            self.stop()
            raise

    def stop(self, *, within: float = WITHIN) -> bool:
        """Let it save and end; tell whether it ran."""
        return self.process.stop(signal.SIGTERM, within=within)

    def problem(self) -> str | None:
        """Why it cannot be used just now; none if it answers to the password."""
        redis = driver("redis")
        client = redis.Redis(
            host=HOST,
            port=self.endpoint.port,
            password=self.endpoint.password.get_secret_value(),
            socket_connect_timeout=PROBE_TIMEOUT,
            socket_timeout=PROBE_TIMEOUT,
        )
        try:
            client.ping()
        except redis.RedisError as error:
            return str(error)
        finally:
            client.close()
        return None

    def _config(self) -> str:
        return "\n".join(
            (
                f"bind {HOST}",
                f"port {self.endpoint.port}",
                f"requirepass {self.endpoint.password.get_secret_value()}",
                "protected-mode yes",
                "daemonize no",
                'logfile ""',
                f'dir "{self.folder.resolve()}"',
                "appendonly yes",
                "appendfsync everysec",
                "save 3600 1 300 100 60 10000",
                "",
            )
        )


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
