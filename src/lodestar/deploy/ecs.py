"""AWS ECS on Fargate: what `aws ecs … --cli-input-json` takes."""

from collections.abc import Mapping
from typing import Any

from lodestar.deploy.documents import Value, json_text
from lodestar.deploy.service import LIVE, PORT, USER, Service
from lodestar.deploy.settings import Setting
from lodestar.errors import UsageError

__all__ = ["SETTINGS", "USUAL_SCALE", "render"]

SETTINGS = (
    Setting("region", "the region, f.e. eu-central-1"),
    Setting("execution_role", "the role that pulls the image and reads the parameters (its ARN)"),
    Setting("subnets", "subnet-…,subnet-…"),
    Setting("security_groups", "sg-…,sg-…"),
    Setting("cluster", "the cluster", "default"),
    Setting("task_role", "the role of the service itself, f.e. for DynamoDB (its ARN)", ""),
    Setting("target_group", "the load balancer's target group, asking /health/ready (its ARN)", ""),
    Setting("parameters", "the path of the variables in Parameter Store (default: /NAME)", ""),
)
USUAL_SCALE = (2, 4)
BUSY_PERCENT = 70.0
PROBE = f"import urllib.request as web; web.urlopen('http://127.0.0.1:{PORT}{LIVE}', timeout=4)"
GIB = 1024
# Fargate's sizes: processor units, and the least, the most and the step of memory in MiB.
SIZES = {
    256: (512, 2 * GIB, 512),
    512: (1 * GIB, 4 * GIB, GIB),
    1024: (2 * GIB, 8 * GIB, GIB),
    2048: (4 * GIB, 16 * GIB, GIB),
    4096: (8 * GIB, 30 * GIB, GIB),
    8192: (16 * GIB, 60 * GIB, 4 * GIB),
    16384: (32 * GIB, 120 * GIB, 8 * GIB),
}


def render(service: Service, settings: Mapping[str, str]) -> dict[str, str]:
    """File name to text.

    Raises:
        UsageError: a size that Fargate does not have.
    """
    cpu, memory = _size(service)
    documents = {
        "task-definition.json": _task(service, settings, cpu=cpu, memory=memory),
        "service.json": _service(service, settings),
    }
    if service.scale.moves:
        place = {
            "ServiceNamespace": "ecs",
            "ResourceId": f"service/{settings['cluster']}/{service.name}",
            "ScalableDimension": "ecs:service:DesiredCount",
        }
        documents["scalable-target.json"] = {
            **place,
            "MinCapacity": service.scale.least,
            "MaxCapacity": service.scale.most,
        }
        documents["scaling-policy.json"] = {
            "PolicyName": f"{service.name}-cpu",
            **place,
            "PolicyType": "TargetTrackingScaling",
            "TargetTrackingScalingPolicyConfiguration": {
                "TargetValue": BUSY_PERCENT,
                "PredefinedMetricSpecification": {
                    "PredefinedMetricType": "ECSServiceAverageCPUUtilization"
                },
                "ScaleInCooldown": 300,
                "ScaleOutCooldown": 30,
            },
        }
    return {name: json_text(value) for name, value in sorted(documents.items())}


def _size(service: Service) -> tuple[int, int]:
    """Processor units and MiB.

    Raises:
        UsageError: Fargate does not have them together.
    """
    units, memory = round(service.resources.cpu * GIB), service.resources.memory
    if units not in SIZES:
        valid = ", ".join(f"{units / GIB:g}" for units in SIZES)
        raise UsageError(
            f"Fargate has no {service.resources.cpu:g} processors", hint=f"--cpu {valid}"
        )
    least, most, step = SIZES[units]
    if not least <= memory <= most or memory % step:
        raise UsageError(
            f"Fargate has no {memory} MiB with {service.resources.cpu:g} processors",
            hint=f"--memory {least}Mi to {most}Mi in steps of {step}Mi",
        )
    return units, memory


def _task(service: Service, settings: Mapping[str, str], *, cpu: int, memory: int) -> Value:
    task: dict[str, Any] = {
        "family": service.name,
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": str(cpu),
        "memory": str(memory),
        "executionRoleArn": settings["execution_role"],
        "runtimePlatform": {"operatingSystemFamily": "LINUX", "cpuArchitecture": "X86_64"},
        "volumes": [{"name": name} for name in service.volumes],
        "containerDefinitions": [_container(service, settings)],
        "tags": [{"key": key, "value": value} for key, value in service.labels.items()],
    }
    if settings["task_role"]:
        task["taskRoleArn"] = settings["task_role"]
    return task


def _container(service: Service, settings: Mapping[str, str]) -> Value:
    path = settings["parameters"].rstrip("/") or f"/{service.name}"
    return {
        "name": "serve-api",
        "image": service.image,
        "essential": True,
        "user": f"{USER}:{USER}",
        "readonlyRootFilesystem": True,
        "linuxParameters": {"capabilities": {"drop": ["ALL"]}, "initProcessEnabled": True},
        "portMappings": [{"name": "http", "containerPort": PORT, "protocol": "tcp"}],
        "environment": [
            {"name": name, "value": value} for name, value in sorted(service.variables.items())
        ],
        "secrets": [{"name": name, "valueFrom": f"{path}/{name}"} for name in service.secrets],
        # The image declares them as volumes, so that its user may write to them.
        "mountPoints": [
            {"sourceVolume": name, "containerPath": place, "readOnly": False}
            for name, place in service.volumes.items()
        ],
        # What fails here is ended, so this is not /health/ready: a load balancer asks that.
        "healthCheck": {
            "command": ["CMD", "python", "-c", PROBE],
            "interval": 10,
            "timeout": 5,
            "retries": 3,
            "startPeriod": 120,
        },
        "stopTimeout": min(service.stop_seconds, 120),
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": f"/ecs/{service.name}",
                "awslogs-region": settings["region"],
                "awslogs-stream-prefix": "serve-api",
            },
        },
    }


def _service(service: Service, settings: Mapping[str, str]) -> Value:
    value: dict[str, Any] = {
        "cluster": settings["cluster"],
        "serviceName": service.name,
        "taskDefinition": service.name,
        "desiredCount": service.scale.least,
        "launchType": "FARGATE",
        "platformVersion": "LATEST",
        "propagateTags": "TASK_DEFINITION",
        "deploymentConfiguration": {
            "minimumHealthyPercent": 100,
            "maximumPercent": 200,
            "deploymentCircuitBreaker": {"enable": True, "rollback": True},
        },
        "networkConfiguration": {
            "awsvpcConfiguration": {
                "subnets": settings["subnets"].split(","),
                "securityGroups": settings["security_groups"].split(","),
                "assignPublicIp": "DISABLED",
            }
        },
    }
    if settings["target_group"]:
        value["healthCheckGracePeriodSeconds"] = 120
        value["loadBalancers"] = [
            {
                "targetGroupArn": settings["target_group"],
                "containerName": "serve-api",
                "containerPort": PORT,
            }
        ]
    return value
