"""Google Cloud Run: the service that `gcloud run services replace` takes (Knative's form)."""

from collections.abc import Mapping
from typing import Any

from lodestar.deploy.documents import Value, yaml_text
from lodestar.deploy.service import HOME, LIVE, PORT, Service
from lodestar.deploy.settings import Setting
from lodestar.errors import UsageError

__all__ = ["SETTINGS", "USUAL_SCALE", "render"]

SETTINGS = (
    Setting("service_account", "the account it runs as, NAME@PROJECT.iam.gserviceaccount.com"),
    Setting("ingress", "all, internal or internal-and-cloud-load-balancing", "internal"),
    Setting("secret_prefix", "what stands before a variable's name in Secret Manager", ""),
)
USUAL_SCALE = (1, 4)
INGRESS = ("all", "internal", "internal-and-cloud-load-balancing")
MOST_CONCURRENT = 1000
WHOLE = 1.0


def render(service: Service, settings: Mapping[str, str]) -> dict[str, str]:
    """File name to text.

    Raises:
        UsageError: what Cloud Run does not have.
    """
    if settings["ingress"] not in INGRESS:
        raise UsageError(
            f"--set ingress={settings['ingress']} is none", hint=f"valid: {', '.join(INGRESS)}"
        )
    if service.scale.most < 1:
        raise UsageError("Cloud Run needs an instance at most, or more", hint="--max 1 or more")
    cpu = service.resources.cpu
    if cpu > WHOLE and not cpu.is_integer():
        raise UsageError(f"Cloud Run has no {cpu:g} processors", hint="up to 1, 2, 4, 6 or 8")
    if service.writable:
        raise UsageError(
            f"serving writes to {', '.join(service.writable)}, which Cloud Run would keep in memory",
            where="config:serving.prediction_log",
            hint="leave the section out of this environment's config",
        )
    document = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": service.name,
            "annotations": {"run.googleapis.com/ingress": settings["ingress"], **service.labels},
        },
        "spec": {"template": _revision(service, settings)},
    }
    return {"service.yaml": yaml_text(document)}


def _revision(service: Service, settings: Mapping[str, str]) -> Value:
    annotations = {
        "autoscaling.knative.dev/minScale": str(service.scale.least),
        "autoscaling.knative.dev/maxScale": str(service.scale.most),
        "run.googleapis.com/execution-environment": "gen2",
        "run.googleapis.com/startup-cpu-boost": "true",
        **service.labels,
    }
    concurrent = 1 if service.resources.cpu < WHOLE else service.concurrency
    return {
        "metadata": {"annotations": annotations},
        "spec": {
            "serviceAccountName": settings["service_account"],
            "containerConcurrency": min(concurrent, MOST_CONCURRENT),
            "timeoutSeconds": service.answer_seconds + 5,
            "containers": [_container(service, settings)],
        },
    }


def _container(service: Service, settings: Mapping[str, str]) -> Value:
    told = [{"name": name, "value": value} for name, value in sorted(service.variables.items())]
    kept: list[dict[str, Any]] = [
        {
            "name": name,
            "valueFrom": {
                "secretKeyRef": {"name": f"{settings['secret_prefix']}{name}", "key": "latest"}
            },
        }
        for name in service.secrets
    ]
    return {
        "image": service.image,
        "ports": [{"name": "http1", "containerPort": PORT}],
        "workingDir": HOME,
        "env": [*told, *kept],
        "resources": {
            "limits": {
                "cpu": f"{service.resources.millicores}m",
                "memory": f"{service.resources.memory}Mi",
            }
        },
        "startupProbe": _probe(every=2, failures=90),
        "livenessProbe": _probe(every=10, failures=3),
    }


def _probe(*, every: int, failures: int) -> Value:
    return {
        "httpGet": {"path": LIVE, "port": PORT},
        "periodSeconds": every,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }
