"""The targets: what each is told, where its sizes begin, and the commands that bring it up."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lodestar.deploy import aws_lambda, cloud_run, compose, container_instances, ecs, kubernetes
from lodestar.deploy.service import Service
from lodestar.deploy.settings import Setting
from lodestar.errors import UsageError, choices

__all__ = ["TARGETS", "Target", "the_target"]


@dataclass(frozen=True)
class Target:
    """One place to deploy to. `apply` is what to type once the image is pushed."""

    name: str
    settings: tuple[Setting, ...]
    scale: tuple[int, int]
    memory: str
    render: Callable[[Service, Mapping[str, str]], dict[str, str]]
    apply: str


TARGETS = {
    target.name: target
    for target in (
        Target(
            "kubernetes",
            kubernetes.SETTINGS,
            kubernetes.USUAL_SCALE,
            "1Gi",
            kubernetes.render,
            "kubectl apply -f {folder}",
        ),
        Target(
            "cloud-run",
            cloud_run.SETTINGS,
            cloud_run.USUAL_SCALE,
            "1Gi",
            cloud_run.render,
            "gcloud run services replace {folder}/service.yaml",
        ),
        Target(
            "ecs",
            ecs.SETTINGS,
            ecs.USUAL_SCALE,
            "2Gi",
            ecs.render,
            "aws ecs register-task-definition --cli-input-json file://{folder}/task-definition.json"
            " && aws ecs create-service --cli-input-json file://{folder}/service.json",
        ),
        Target(
            "lambda",
            aws_lambda.SETTINGS,
            aws_lambda.USUAL_SCALE,
            "1769Mi",
            aws_lambda.render,
            "aws cloudformation deploy --template-file {folder}/template.json"
            " --stack-name {name} --capabilities CAPABILITY_IAM",
        ),
        Target(
            "container-instances",
            container_instances.SETTINGS,
            container_instances.USUAL_SCALE,
            "1Gi",
            container_instances.render,
            "az deployment group create --resource-group GROUP"
            " --template-file {folder}/template.json --parameters @{folder}/parameters.json",
        ),
        Target(
            "compose",
            compose.SETTINGS,
            compose.USUAL_SCALE,
            "1Gi",
            compose.render,
            "docker compose -f {folder}/compose.yaml up --wait",
        ),
    )
}


def the_target(name: str) -> Target:
    """One of them, by name.

    Raises:
        UsageError: there is none so named.
    """
    if name not in TARGETS:
        raise UsageError(f"there is no target {name!r}", hint=choices(name, list(TARGETS)))
    return TARGETS[name]
