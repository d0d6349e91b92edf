"""The combinations of stores and servers that a project can begin with, each with its own config."""

from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from lodestar.errors import UsageError, choices

__all__ = ["STACKS", "Stack", "stack_named"]

_SERVES = ("serving", "native", "deploy", "causal")


@dataclass(frozen=True)
class Stack:
    """One combination: what it is made of, its environment, what to install, where it is served.

    `template` is the list of the variables that its config reads; None where `lodestar infra up` writes
    them. `targets` are those of `lodestar deploy render`.
    """

    name: str
    about: str
    environment: str
    extras: tuple[str, ...]
    targets: tuple[str, ...]
    template: str | None = "config/prod.env.example"

    @property
    def folder(self) -> Traversable | None:
        """What it adds to a project; None where every project has it all."""
        return None if self.template is None else files("lodestar.samples") / "stacks" / self.name

    @property
    def install(self) -> str:
        """The command that installs what it needs."""
        return f"pip install 'lodestar-ml[{','.join(self.extras)}]'"


_ALL = (
    Stack(
        "gcp_native",
        "BigQuery, Redis, Cloud Storage, MLflow, Cloud Run",
        "prod",
        ("bigquery", "gcs", "feast", *_SERVES),
        ("cloud-run",),
    ),
    Stack(
        "aws_native",
        "Snowflake, DynamoDB, S3, MLflow, ECS or Lambda",
        "prod",
        ("snowflake", "s3", "dynamodb", *_SERVES),
        ("ecs", "lambda"),
    ),
    Stack(
        "multi_cloud",
        "PostgreSQL, Redis or DynamoDB, Cloud Storage and S3, MLflow, Kubernetes",
        "prod",
        ("postgres", "gcs", "s3", "feast", *_SERVES),
        ("kubernetes",),
    ),
    Stack(
        "on_premises",
        "PostgreSQL, a Redis Cluster, a shared file system, MLflow, Docker or Kubernetes",
        "prod",
        ("postgres", "feast", *_SERVES),
        ("compose", "kubernetes"),
    ),
    Stack(
        "azure_native",
        "Snowflake, Redis, Blob Storage, MLflow, Container Instances",
        "prod",
        ("snowflake", "azure", "feast", *_SERVES),
        ("container-instances",),
    ),
    Stack(
        "local_development",
        "files, then PostgreSQL, Redis and MLflow on this machine, and a local API",
        "dev",
        ("dev-infra", "serving", "native", "causal"),
        (),
        template=None,
    ),
)
STACKS = {stack.name: stack for stack in _ALL}


def stack_named(name: str) -> Stack:
    """The stack of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in STACKS:
        raise UsageError(f"there is no stack {name!r}", hint=choices(name, list(STACKS)))
    return STACKS[name]
