"""Plain Docker compose, on one machine."""

from collections.abc import Mapping
from typing import Any

from lodestar.deploy.documents import yaml_text
from lodestar.deploy.service import PORT, USER, Service
from lodestar.deploy.settings import Setting
from lodestar.errors import UsageError

__all__ = ["SETTINGS", "USUAL_SCALE", "render"]

SETTINGS = (
    Setting("address", "where it is published on the machine", "127.0.0.1"),
    Setting("port", "the first port there; each instance takes one", str(PORT)),
)
USUAL_SCALE = (1, 1)


def render(service: Service, settings: Mapping[str, str]) -> dict[str, str]:
    """File name to text.

    Raises:
        UsageError: a range of instances, which nothing here scales in; or no port.
    """
    if service.scale.moves or service.scale.least < 1:
        raise UsageError("compose does not scale by itself", hint="--replicas N")
    variables = {
        **dict(sorted(service.variables.items())),
        **{name: f"${{{name}:?not set}}" for name in service.secrets},
    }
    container: dict[str, Any] = {
        "image": service.image,
        "build": {"context": "image"},
        "user": f"{USER}:{USER}",
        "read_only": True,
        "tmpfs": [f"{folder}:size=256m,mode=1777" for folder in service.volumes.values()],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "environment": variables,
        "ports": [
            {
                "target": PORT,
                "published": _ports(service, settings),
                "host_ip": settings["address"],
                "protocol": "tcp",
            }
        ],
        "stop_grace_period": f"{service.stop_seconds}s",
        "restart": "unless-stopped",
        "deploy": {
            "replicas": service.scale.least,
            "resources": {
                "limits": {
                    "cpus": f"{service.resources.cpu:g}",
                    "memory": f"{service.resources.memory}M",
                }
            },
        },
        "labels": service.labels,
    }
    if not variables:
        del container["environment"]
    project = {"name": service.name, "services": {"serve-api": container}}
    header = (
        "docker compose up --wait: the image's own health check says when it is ready.\n"
        "Variables come from the shell, or from a file that is in no repository: --env-file."
    )
    return {"compose.yaml": yaml_text(project, header=header)}


def _ports(service: Service, settings: Mapping[str, str]) -> str:
    first = settings["port"]
    if not first.isdigit() or not 0 < int(first) <= 65_536 - service.scale.least:
        raise UsageError(f"--set port={first} is no port", hint="1 to 65535")
    last = int(first) + service.scale.least - 1
    return first if service.scale.least == 1 else f"{first}-{last}"
