"""What is rendered, against the schemas that the targets publish. None of them is asked."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import botocore.session
import compose_spec
import kubernetes_validate
import pytest
from azure.mgmt.containerinstance import models as azure
from botocore.validate import ParamValidator
from tests.deploying import ECR, a_service, loaded, rendered

from lodestar.deploy.aws_lambda import ADAPTER
from lodestar.deploy.dockerfile import dockerfile
from lodestar.deploy.service import Resources, Scale, Service

WRITES = ("logs/predictions",)
ONE = Scale(1, 1)
VARIANTS = {
    "usual": a_service(),
    "fixed": a_service(scale=Scale(3, 3), resources=Resources(0.5, 1024)),
    "alone": a_service(secrets=(), variables={}, calls_out=False, scale=Scale(1, 1)),
}
# The oldest Kubernetes whose containers can sleep before they end, and the newest there is.
KUBERNETES = ("1.30", kubernetes_validate.latest_version())


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_kubernetes(variant: str, version: str) -> None:
    service = replace(VARIANTS[variant], writable=WRITES)
    documents = rendered("kubernetes", service, "namespace=shop", "from_namespace=ingress")
    kinds = {loaded(text)["kind"] for text in documents.values()}
    scaled = {"HorizontalPodAutoscaler"} if service.scale.moves else set()
    assert kinds == scaled | {
        *("Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service", "ServiceAccount"),
    }
    for text in documents.values():
        kubernetes_validate.validate(loaded(text), version, strict=True)


def test_kubernetes_schemas_refuse_what_is_wrong() -> None:
    text = rendered("kubernetes", a_service())["deployment.yaml"]
    for good, bad in (("runAsNonRoot: true", "runAsNonroot: true"), ("drop:", "dropped:")):
        assert good in text
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(
                loaded(text.replace(good, bad)), KUBERNETES[-1], strict=True
            )


@pytest.mark.parametrize("variant", VARIANTS)
def test_ecs(variant: str) -> None:
    service = replace(VARIANTS[variant], resources=Resources(1.0, 2048), writable=WRITES)
    documents = rendered("ecs", service, f"target_group={'arn:aws:elasticloadbalancing:x'}")
    inputs = {
        "task-definition.json": ("ecs", "RegisterTaskDefinition"),
        "service.json": ("ecs", "CreateService"),
        "scalable-target.json": ("application-autoscaling", "RegisterScalableTarget"),
        "scaling-policy.json": ("application-autoscaling", "PutScalingPolicy"),
    }
    assert len(documents) == (4 if service.scale.moves else 2)
    for name, text in documents.items():
        assert _refused_by_aws(*inputs[name], json.loads(text)) == ""


def test_the_service_model_of_ecs_refuses_what_is_wrong() -> None:
    task = json.loads(rendered("ecs", a_service())["task-definition.json"])
    container = task["containerDefinitions"][0]
    container["readonlyRootFileSystem"] = container.pop("readonlyRootFilesystem")
    said = _refused_by_aws("ecs", "RegisterTaskDefinition", task)
    assert "readonlyRootFileSystem" in said


def _refused_by_aws(service: str, operation: str, value: Mapping[str, Any]) -> str:
    """What botocore finds before it would send anything."""
    shape = _aws_model(service).operation_model(operation).input_shape
    return str(ParamValidator().validate(value, shape).generate_report())


@cache
def _aws_model(service: str) -> Any:  # noqa: ANN401 -- botocore has no types
    return botocore.session.get_session().get_service_model(service)


@pytest.mark.parametrize("variant", VARIANTS)
def test_lambda(variant: str) -> None:
    service = replace(VARIANTS[variant], image=ECR)
    vpc = ("subnets=subnet-0123456789abcdef0", "security_groups=sg-0123456789abcdef0")
    text = rendered("lambda", service, *vpc)["template.json"]
    assert _refused_by_cloudformation(text) == []
    assert _refused_by_cloudformation(text.replace('"PackageType"', '"PackageTyp"'))


def _refused_by_cloudformation(text: str) -> list[str]:
    from cfnlint.api import lint

    return [
        str(found)
        for found in lint(text, regions=["eu-central-1", "us-east-1"])
        if found.rule.severity == "error"
    ]


def test_cloud_run() -> None:
    for service in VARIANTS.values():
        document = loaded(rendered("cloud-run", service)["service.yaml"])
        assert _differences(document, "Service") == []
    document["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    document["spec"]["template"]["spec"]["timeoutSeconds"] = "soon"
    assert len(_differences(document, "Service")) == 2


@cache
def _cloud_run() -> Mapping[str, Any]:
    """Google's own description of the API that `gcloud run services replace` calls."""
    place = files("googleapiclient") / "discovery_cache" / "documents" / "run.v1.json"
    schemas: Mapping[str, Any] = json.loads(place.read_text(encoding="utf-8"))["schemas"]
    return schemas


PLAIN: Mapping[str, Any] = {"string": str, "integer": int, "boolean": bool, "number": (int, float)}


def _differences(value: object, schema: object, where: str = "") -> list[str]:
    """Where a value is not what a schema of a discovery document allows; unknown keys are none."""
    known = _cloud_run()[schema] if isinstance(schema, str) else schema
    assert isinstance(known, Mapping)
    if "$ref" in known:
        return _differences(value, known["$ref"], where)
    if known["type"] == "array":
        items = value if isinstance(value, list) else [None]
        return [found for item in items for found in _differences(item, known["items"], where)]
    if known["type"] != "object":
        return [] if isinstance(value, PLAIN[known["type"]]) else [f"{where}: {value!r}"]
    if not isinstance(value, Mapping):
        return [f"{where}: {value!r}"]
    inner, others = known.get("properties", {}), known.get("additionalProperties")
    found: list[str] = []
    for key, item in value.items():
        if key not in inner and others is None:
            found.append(f"{where}.{key}")
        else:
            found += _differences(item, inner.get(key, others), f"{where}.{key}")
    return found


def test_container_instances() -> None:
    for variant in VARIANTS.values():
        service = replace(variant, scale=ONE, writable=WRITES)
        documents = rendered("container-instances", service, "identity=/subscriptions/1/identity")
        template, parameters = (
            json.loads(documents[name]) for name in ("template.json", "parameters.json")
        )
        assert set(template["parameters"]) == set(parameters["parameters"]) == set(service.secrets)
        (group,) = template["resources"]
        assert _as_azure_reads_it(group) == _sent(group)
    group["properties"]["containers"][0]["properties"]["livenessprobe"] = {}
    assert _as_azure_reads_it(group) != _sent(group)


def _as_azure_reads_it(group: Mapping[str, Any]) -> object:
    """Through the models of Azure's own client, which drop what they do not know."""
    return azure.ContainerGroup.deserialize(_sent(group)).serialize()


def _sent(group: Mapping[str, Any]) -> dict[str, Any]:
    """What a client would send: the rest of a template's resource stands in the address."""
    return {key: group[key] for key in group if key not in ("type", "apiVersion", "name")}


def test_compose() -> None:
    for variant in VARIANTS.values():
        service = replace(variant, scale=Scale(2, 2), writable=WRITES)
        text = rendered("compose", service)["compose.yaml"]
        compose_spec.PyCompose.from_yaml(text).validate()
        assert loaded(text)["services"]["serve-api"]["ports"] == [
            {"target": 8000, "published": "8000-8001", "host_ip": "127.0.0.1", "protocol": "tcp"}
        ]
    for good, bad in (("cap_drop", "cap_dropp"), ("replicas: 2", "replicas: two")):
        with pytest.raises(ValueError, match=bad.split(maxsplit=1)[0].rstrip(":")):
            compose_spec.PyCompose.from_yaml(text.replace(good, bad))


def test_dockerfile(tmp_path: Path) -> None:
    for service, adapter in ((a_service(), None), (a_service(writable=WRITES), ADAPTER)):
        text = dockerfile(service, base="python:3.11-slim", adapter=adapter)
        assert _linted(tmp_path, text) == ""
    assert "DL3006" in _linted(tmp_path, text.replace("python:3.11-slim", "python"))


def _linted(folder: Path, text: str) -> str:
    path = folder / "Dockerfile"
    path.write_text(text, encoding="utf-8")
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, "--no-color", str(path)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout


def test_every_instance_of_every_target_is_locked_down() -> None:
    service: Service = a_service(scale=ONE)
    pod = loaded(rendered("kubernetes", service)["deployment.yaml"])["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {volume["name"] for volume in pod["volumes"]} == {"tmp"}
    assert container["resources"]["requests"] == {"cpu": "1000m", "memory": "2048Mi"}
    (task,) = json.loads(rendered("ecs", service)["task-definition.json"])["containerDefinitions"]
    assert task["readonlyRootFilesystem"] is True
    assert task["user"] == "10001:10001"
    composed = loaded(rendered("compose", service)["compose.yaml"])["services"]["serve-api"]
    assert composed["read_only"] is True
    assert composed["cap_drop"] == ["ALL"]
