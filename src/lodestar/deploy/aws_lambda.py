"""AWS Lambda from a container image: a CloudFormation template.

Lambda speaks no HTTP to a container. The Lambda Web Adapter, an extension copied into the image, asks
serve-api over HTTP for every invocation (github.com/aws/aws-lambda-web-adapter).
"""

import re
from collections.abc import Mapping
from typing import Any

from lodestar.deploy.documents import Value, json_text
from lodestar.deploy.service import PORT, READY, Service
from lodestar.deploy.settings import Setting
from lodestar.errors import UsageError

__all__ = ["ADAPTER", "SETTINGS", "USUAL_SCALE", "render"]

ADAPTER = "public.ecr.aws/awsguru/aws-lambda-adapter:1.0.1"
SETTINGS = (
    Setting("adapter", "the image that the Lambda Web Adapter is copied from", ADAPTER),
    Setting(
        "secret", "the secret in Secrets Manager, one key per variable (default: NAME-secrets)", ""
    ),
    Setting("subnets", "subnet-…,subnet-…, for an online store in a VPC", ""),
    Setting("security_groups", "sg-…, for an online store in a VPC", ""),
)
USUAL_SCALE = (0, 0)
ALIAS = "live"
LEAST_MEMORY, MOST_MEMORY = 128, 10_240
MEMORY_PER_CPU = 1769  # MiB: Lambda gives processors by memory

_ECR = re.compile(r"^\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/")


def render(service: Service, settings: Mapping[str, str]) -> dict[str, str]:
    """File name to text.

    Raises:
        UsageError: what Lambda does not have.
    """
    _check(service, settings)
    resources: dict[str, Value] = {
        "Role": _role(settings),
        "Function": _function(service, settings),
        "Url": {
            "Type": "AWS::Lambda::Url",
            "DependsOn": "Live",
            "Properties": {
                "TargetFunctionArn": {"Ref": "Function"},
                "Qualifier": ALIAS,
                "AuthType": "AWS_IAM",
                "InvokeMode": "BUFFERED",
            },
        },
        "Version": {
            "Type": "AWS::Lambda::Version",
            "Properties": {
                "FunctionName": {"Ref": "Function"},
                "Description": f"run {service.run_id}, {service.image}"[:256],
            },
        },
        "Live": _alias(service),
    }
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"serve-api of {service.recipe}, run {service.run_id}",
        "Resources": resources,
        "Outputs": {"Url": {"Value": {"Fn::GetAtt": ["Url", "FunctionUrl"]}}},
    }
    return {"template.json": json_text(template)}


def _check(service: Service, settings: Mapping[str, str]) -> None:
    if not _ECR.match(service.image):
        raise UsageError(
            f"Lambda takes images from ECR alone, and {service.image} is elsewhere",
            hint="--image ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG",
        )
    if not LEAST_MEMORY <= service.resources.memory <= MOST_MEMORY:
        raise UsageError(
            f"Lambda has no {service.resources.memory} MiB",
            hint=f"--memory {LEAST_MEMORY}Mi to {MOST_MEMORY}Mi; {MEMORY_PER_CPU}Mi is a processor",
        )
    if service.writable:
        raise UsageError(
            f"serving writes to {', '.join(service.writable)}, which Lambda does not keep",
            where="config:serving.prediction_log",
            hint="leave the section out of this environment's config",
        )
    if bool(settings["subnets"]) != bool(settings["security_groups"]):
        raise UsageError("subnets and security_groups go together")


def _role(settings: Mapping[str, str]) -> Value:
    managed = (
        "AWSLambdaVPCAccessExecutionRole" if settings["subnets"] else "AWSLambdaBasicExecutionRole"
    )
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": "lambda.amazonaws.com"},
                        "Action": "sts:AssumeRole",
                    }
                ],
            },
            "ManagedPolicyArns": [
                {"Fn::Sub": f"arn:${{AWS::Partition}}:iam::aws:policy/service-role/{managed}"}
            ],
        },
    }


def _function(service: Service, settings: Mapping[str, str]) -> Value:
    secret = settings["secret"] or f"{service.name}-secrets"
    kept = {
        name: f"{{{{resolve:secretsmanager:{secret}:SecretString:{name}}}}}"
        for name in service.secrets
    }
    properties: dict[str, Any] = {
        "FunctionName": service.name,
        "PackageType": "Image",
        "Code": {"ImageUri": service.image},
        "Architectures": ["x86_64"],
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "MemorySize": service.resources.memory,
        "Timeout": service.answer_seconds + 20,
        "Environment": {
            "Variables": {
                "AWS_LWA_PORT": str(PORT),
                "AWS_LWA_READINESS_CHECK_PATH": READY,
                # A first start may take longer than the ten seconds that Lambda waits.
                "AWS_LWA_ASYNC_INIT": "true",
                **dict(sorted(service.variables.items())),
                **kept,
            }
        },
        "Tags": [{"Key": key, "Value": value} for key, value in service.labels.items()],
    }
    if service.scale.most > 0:
        properties["ReservedConcurrentExecutions"] = service.scale.most
    if settings["subnets"]:
        properties["VpcConfig"] = {
            "SubnetIds": settings["subnets"].split(","),
            "SecurityGroupIds": settings["security_groups"].split(","),
        }
    return {"Type": "AWS::Lambda::Function", "Properties": properties}


def _alias(service: Service) -> Value:
    properties: dict[str, Any] = {
        "Name": ALIAS,
        "FunctionName": {"Ref": "Function"},
        "FunctionVersion": {"Fn::GetAtt": ["Version", "Version"]},
    }
    if service.scale.least:
        properties["ProvisionedConcurrencyConfig"] = {
            "ProvisionedConcurrentExecutions": service.scale.least
        }
    return {"Type": "AWS::Lambda::Alias", "Properties": properties}
