"""What a server was started to serve, handed from the command to its workers as JSON."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from lodestar.artifact.register import OpenedRun
from lodestar.settings.loading import Environment, load_config

__all__ = ["ORDER", "ServeOrder"]

ORDER = "LODESTAR_SERVE_ORDER"


@dataclass(frozen=True)
class ServeOrder:
    """Which project and environment, and which runs answer.

    `traffic` is the percentage of entities that the challenger answers. The shadow is asked too, and
    its answers are compared, never given. `state` is a private folder, in which the workers keep which
    champion all of them serve now; it begins with this one. `follow` is an alias: what it means later
    becomes the champion. `as_of` (ns since 1970) is the time that features are judged by instead of now.
    """

    project: Path
    environment: str
    champion: OpenedRun
    state: Path
    follow: str | None = None
    challenger: OpenedRun | None = None
    shadow: OpenedRun | None = None
    traffic: float = 0.0
    workers: int = 1
    as_of: int | None = None

    def to_json(self) -> str:
        """For an environment variable."""
        return msgspec.json.encode(asdict(self), enc_hook=str).decode()

    @classmethod
    def from_json(cls, text: str) -> "ServeOrder":
        """Read what `to_json` wrote."""
        value: dict[str, Any] = msgspec.json.decode(text)
        runs = {
            role: _run(value[role]) for role in ("champion", "challenger", "shadow") if value[role]
        }
        return replace(
            cls(
                project=Path(value["project"]),
                environment=value["environment"],
                champion=runs["champion"],
                state=Path(value["state"]),
                follow=value["follow"],
                traffic=value["traffic"],
                workers=value["workers"],
                as_of=value["as_of"],
            ),
            challenger=runs.get("challenger"),
            shadow=runs.get("shadow"),
        )

    def clock(self) -> Callable[[], int]:
        """What tells the time that features are judged by, in ns since 1970."""
        moment = self.as_of
        return time.time_ns if moment is None else lambda: moment

    def load_environment(self, variables: Mapping[str, str]) -> Environment:
        """The config of the environment to serve in."""
        return load_config(self.project, self.environment, variables=variables)


def _run(value: Mapping[str, Any]) -> OpenedRun:
    return OpenedRun(**{**value, "folder": Path(value["folder"])})
