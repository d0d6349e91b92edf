"""Kubernetes: what `kubectl apply -f` takes."""

from collections.abc import Mapping
from typing import Any

from lodestar.deploy.documents import Value, yaml_text
from lodestar.deploy.service import LIVE, PORT, READY, USER, Service
from lodestar.deploy.settings import Setting
from lodestar.errors import UsageError

__all__ = ["SETTINGS", "USUAL_SCALE", "render"]

SETTINGS = (
    Setting("namespace", "the namespace of all of it", "default"),
    Setting("secret", "the Secret that holds the variables (default: NAME-secrets)", ""),
    Setting("from_namespace", "the namespace that may ask the API, f.e. the ingress's", ""),
)
USUAL_SCALE = (2, 4)
BUSY_PERCENT = 70
# Endpoints hear of an end later than the container does: it goes on for a moment.
TOLD_SECONDS = 5
# Where clouds give a machine's own credentials to whoever asks.
MACHINE_METADATA = "169.254.169.254/32"


def render(service: Service, settings: Mapping[str, str]) -> dict[str, str]:
    """File name to text, one object each.

    Raises:
        UsageError: it shall scale to nothing.
    """
    if service.scale.moves and service.scale.least < 1:
        raise UsageError(
            "a HorizontalPodAutoscaler does not scale to nothing", hint="--min 1 or more"
        )
    objects = {
        "serviceaccount.yaml": _account(service, settings),
        "deployment.yaml": _deployment(service, settings),
        "service.yaml": _service(service, settings),
        "poddisruptionbudget.yaml": _budget(service, settings),
        "networkpolicy.yaml": _network(service, settings),
    }
    if service.scale.moves:
        objects["horizontalpodautoscaler.yaml"] = _scaler(service, settings)
    return {name: yaml_text(value) for name, value in sorted(objects.items())}


def _named(service: Service, settings: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": service.name,
        "namespace": settings["namespace"],
        "labels": {
            **_selected(service),
            "app.kubernetes.io/component": "serve-api",
            "app.kubernetes.io/managed-by": "lodestar",
        },
        "annotations": service.labels,
    }


def _selected(service: Service) -> dict[str, str]:
    return {"app.kubernetes.io/name": service.name}


def _object(
    version: str, kind: str, service: Service, settings: Mapping[str, str], **body: object
) -> Value:
    return {"apiVersion": version, "kind": kind, "metadata": _named(service, settings), **body}


def _account(service: Service, settings: Mapping[str, str]) -> Value:
    return _object("v1", "ServiceAccount", service, settings, automountServiceAccountToken=False)


def _deployment(service: Service, settings: Mapping[str, str]) -> Value:
    spec: dict[str, Any] = {} if service.scale.moves else {"replicas": service.scale.least}
    spec |= {
        "revisionHistoryLimit": 5,
        "selector": {"matchLabels": _selected(service)},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        },
        "template": {
            "metadata": {
                "labels": _named(service, settings)["labels"],
                "annotations": service.labels,
            },
            "spec": _pod(service, settings),
        },
    }
    return _object("apps/v1", "Deployment", service, settings, spec=spec)


def _pod(service: Service, settings: Mapping[str, str]) -> Value:
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": _selected(service)},
    }
    return {
        "serviceAccountName": service.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": service.stop_seconds + TOLD_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [spread],
        "containers": [_container(service, settings)],
        "volumes": [{"name": name, "emptyDir": {"sizeLimit": "1Gi"}} for name in service.volumes],
    }


def _container(service: Service, settings: Mapping[str, str]) -> Value:
    amounts = {
        "cpu": f"{service.resources.millicores}m",
        "memory": f"{service.resources.memory}Mi",
    }
    return {
        "name": "serve-api",
        "image": service.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": _variables(service, settings),
        "resources": {"requests": amounts, "limits": amounts},
        "startupProbe": _probe(LIVE, every=2, failures=90),
        "livenessProbe": _probe(LIVE, every=10, failures=3),
        "readinessProbe": _probe(READY, every=5, failures=2),
        "lifecycle": {"preStop": {"sleep": {"seconds": TOLD_SECONDS}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": name, "mountPath": path} for name, path in service.volumes.items()
        ],
    }


def _variables(service: Service, settings: Mapping[str, str]) -> list[Value]:
    secret = settings["secret"] or f"{service.name}-secrets"
    told = [{"name": name, "value": value} for name, value in sorted(service.variables.items())]
    kept = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}}
        for name in service.secrets
    ]
    return [*told, *kept]


def _probe(path: str, *, every: int, failures: int) -> Value:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": every,
        "timeoutSeconds": 3,
        "failureThreshold": failures,
    }


def _service(service: Service, settings: Mapping[str, str]) -> Value:
    port = {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}
    spec = {"type": "ClusterIP", "selector": _selected(service), "ports": [port]}
    return _object("v1", "Service", service, settings, spec=spec)


def _budget(service: Service, settings: Mapping[str, str]) -> Value:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": _selected(service)}}
    return _object("policy/v1", "PodDisruptionBudget", service, settings, spec=spec)


def _scaler(service: Service, settings: Mapping[str, str]) -> Value:
    busy = {
        "name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": BUSY_PERCENT},
    }
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": service.name},
        "minReplicas": service.scale.least,
        "maxReplicas": service.scale.most,
        "metrics": [{"type": "Resource", "resource": busy}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
    }
    return _object("autoscaling/v2", "HorizontalPodAutoscaler", service, settings, spec=spec)


def _network(service: Service, settings: Mapping[str, str]) -> Value:
    """In: the API's port alone. Out: names, and the online store where there is one."""
    asking: list[Value] = [{"podSelector": {}}]
    if settings["from_namespace"]:
        named = {"kubernetes.io/metadata.name": settings["from_namespace"]}
        asking.append({"namespaceSelector": {"matchLabels": named}})
    names = {
        "to": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
        ],
        "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
    }
    anywhere = {
        "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [MACHINE_METADATA]}}],
        "ports": [{"protocol": "TCP", "port": 1, "endPort": 65_535}],
    }
    spec = {
        "podSelector": {"matchLabels": _selected(service)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": asking, "ports": [{"protocol": "TCP", "port": PORT}]}],
        "egress": [names, anywhere] if service.calls_out else [],
    }
    return _object("networking.k8s.io/v1", "NetworkPolicy", service, settings, spec=spec)
