"""A project whose runs may be served to others, and its renderings."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ruamel.yaml import YAML
from tests.conftest import Trained
from tests.served_projects import write_served_config

from lodestar.deploy.service import Resources, Scale, Service
from lodestar.deploy.settings import read_settings
from lodestar.deploy.targets import TARGETS

__all__ = [
    "CONFIG",
    "ECR",
    "ENV",
    "IMAGE",
    "KEY",
    "SECRETS",
    "SETTINGS",
    "VARIABLES",
    "a_service",
    "deployable",
    "loaded",
    "rendered",
]

IMAGE = "registry.example.com/shop/breast-cancer:2025-07-13"
ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop:1"
KEY = "a key of the tests"
SECRETS: dict[str, str] = {"LODESTAR_API_KEY_SHA256": hashlib.sha256(KEY.encode()).hexdigest()}
ENV = "prod"
CONFIG = """\
environment: {serving: allowed}
serving:
  authentication:
    api_keys: ["${LODESTAR_API_KEY_SHA256}"]
"""
VARIABLES = {"APP_ENV": ENV, **SECRETS}
ROLE = "arn:aws:iam::123456789012:role/lodestar"
GROUP = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/shop/providers"
# What each target has to be told.
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "kubernetes": (),
    "cloud-run": ("service_account=shop@example-project.iam.gserviceaccount.com",),
    "ecs": (
        "region=eu-central-1",
        f"execution_role={ROLE}",
        "subnets=subnet-1a,subnet-2b",
        "security_groups=sg-1",
    ),
    "lambda": (),
    "container-instances": (
        f"key_vault={GROUP}/Microsoft.KeyVault/vaults/shop",
        f"subnet={GROUP}/Microsoft.Network/virtualNetworks/shop/subnets/api",
    ),
    "compose": (),
}


def deployable(trained: Callable[..., Trained], *, config: str = CONFIG) -> Trained:
    """A trained run of the sample project, which gets an environment that serves it to others."""
    run = trained("breast_cancer")
    write_served_config(run.project, ENV, config)
    return run


def loaded(text: str) -> Any:  # noqa: ANN401 -- a document
    """A rendered document; JSON is YAML too."""
    return YAML(typ="safe", pure=True).load(text)


def a_service(**changes: Any) -> Service:  # noqa: ANN401 -- any field of a Service
    """One run's service, with everything that a target may have to write."""
    service = Service(
        name="breast-cancer",
        image=IMAGE,
        run_id="0123456789abcdef" * 2,
        run_name="XGBClassifier_breast_cancer_20250713_231043",
        recipe="breast_cancer",
        digest="fedcba9876543210" * 4,
        environment=ENV,
        resources=Resources(1.0, 2048),
        scale=Scale(2, 4),
        secrets=("LODESTAR_API_KEY_SHA256", "LODESTAR_REDIS_URI"),
        variables={"LODESTAR_NOTE": "100"},
        calls_out=True,
    )
    return replace(service, **changes)


def rendered(target: str, service: Service, *more: str) -> dict[str, str]:
    """A target's files, told what it has to be told and more."""
    known = TARGETS[target]
    settings = read_settings(target, known.settings, (*SETTINGS[target], *more))
    return known.render(service, settings)
