"""Azure Container Instances: an ARM template, and parameters that Key Vault fills in."""

from collections.abc import Mapping
from typing import Any

from lodestar.deploy.documents import Value, json_text
from lodestar.deploy.service import LIVE, PORT, READY, Service
from lodestar.deploy.settings import Setting
from lodestar.errors import UsageError

__all__ = ["API_VERSION", "SETTINGS", "USUAL_SCALE", "render"]

SETTINGS = (
    Setting("key_vault", "the resource id of the vault that holds the variables"),
    Setting("subnet", "the resource id of the subnet it is in"),
    Setting("location", "the region (default: the resource group's)", ""),
    Setting("identity", "the resource id of the identity that pulls the image", ""),
)
USUAL_SCALE = (1, 1)
API_VERSION = "2023-05-01"
SCHEMA = "https://schema.management.azure.com/schemas/2019-04-01/deployment{}.json#"


def render(service: Service, settings: Mapping[str, str]) -> dict[str, str]:
    """File name to text.

    Raises:
        UsageError: more than one instance.
    """
    if service.scale.moves or service.scale.least != 1:
        raise UsageError(
            "a container group is one instance and does not scale",
            hint="--replicas 1; for more there is the target kubernetes (AKS)",
        )
    parameters = {name: {"type": "securestring"} for name in service.secrets}
    template = {
        "$schema": SCHEMA.format("Template"),
        "contentVersion": "1.0.0.0",
        "parameters": parameters,
        "resources": [_group(service, settings)],
    }
    vault = {"id": settings["key_vault"]}
    filled = {
        "$schema": SCHEMA.format("Parameters"),
        "contentVersion": "1.0.0.0",
        "parameters": {
            # A Key Vault's names have no underscores.
            name: {"reference": {"keyVault": vault, "secretName": _kept_as(name)}}
            for name in service.secrets
        },
    }
    return {"parameters.json": json_text(filled), "template.json": json_text(template)}


def _kept_as(name: str) -> str:
    return name.replace("_", "-").lower()


def _group(service: Service, settings: Mapping[str, str]) -> Value:
    registry = service.image.partition("/")[0]
    properties: dict[str, Any] = {
        "osType": "Linux",
        "sku": "Standard",
        "restartPolicy": "Always",
        "containers": [{"name": "serve-api", "properties": _container(service)}],
        "ipAddress": {"type": "Private", "ports": [{"port": PORT, "protocol": "TCP"}]},
        "subnetIds": [{"id": settings["subnet"]}],
        "volumes": [{"name": name, "emptyDir": {}} for name in _volumes(service)],
    }
    group: dict[str, Any] = {
        "type": "Microsoft.ContainerInstance/containerGroups",
        "apiVersion": API_VERSION,
        "name": service.name,
        "location": settings["location"] or "[resourceGroup().location]",
        "tags": service.labels,
    }
    if settings["identity"]:
        identity = settings["identity"]
        group["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {identity: {}}}
        properties["imageRegistryCredentials"] = [{"server": registry, "identity": identity}]
    return {**group, "properties": properties}


def _container(service: Service) -> Value:
    told = [{"name": name, "value": value} for name, value in sorted(service.variables.items())]
    kept = [{"name": name, "secureValue": f"[parameters('{name}')]"} for name in service.secrets]
    amounts = {
        "cpu": service.resources.cpu,
        "memoryInGB": round(service.resources.gibibytes, 1),
    }
    return {
        "image": service.image,
        "ports": [{"port": PORT, "protocol": "TCP"}],
        "environmentVariables": [*told, *kept],
        "resources": {"requests": amounts, "limits": amounts},
        "livenessProbe": _probe(LIVE, every=10, failures=3, delay=120),
        "readinessProbe": _probe(READY, every=5, failures=2, delay=5),
        "volumeMounts": [
            {"name": name, "mountPath": path} for name, path in _volumes(service).items()
        ],
    }


def _volumes(service: Service) -> dict[str, str]:
    """Name and path. The root file system can be written to, so /tmp needs none."""
    return {name: path for name, path in service.volumes.items() if name != "tmp"}


def _probe(path: str, *, every: int, failures: int, delay: int) -> Value:
    return {
        "httpGet": {"path": path, "port": PORT, "scheme": "http"},
        "initialDelaySeconds": delay,
        "periodSeconds": every,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }
