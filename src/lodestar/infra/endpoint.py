"""Where a server of ours listens, and the password that it asks for."""

import random
import secrets
import socket
from dataclasses import dataclass

from pydantic import SecretStr

__all__ = ["HOST", "PORTS", "Endpoint", "free_port", "port_taken"]

HOST = "127.0.0.1"
# Below the ports that outgoing connections get: one of those could sit on ours when it starts again.
PORTS = range(15_000, 32_000)
PASSWORD_BYTES = 24


@dataclass(frozen=True)
class Endpoint:
    """A port of this machine, for this machine only."""

    port: int
    password: SecretStr

    @classmethod
    def fresh(cls) -> "Endpoint":
        """Take a free port and make up a password."""
        return cls(free_port(), SecretStr(secrets.token_hex(PASSWORD_BYTES)))

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{HOST}:{self.port}"


def free_port() -> int:
    """A port that nothing listens on now."""
    tried = random.SystemRandom()
    while port_taken(port := tried.choice(PORTS)):
        pass
    return port


def port_taken(port: int) -> bool:
    """Whether something listens there, of whoever."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
