"""What an environment's config does not allow."""

from lodestar.errors import NotAllowedError
from lodestar.settings.loading import Environment

__all__ = ["check_serving_allowed"]


def check_serving_allowed(environment: Environment, reference: str) -> None:
    """Refuse where serving is blocked, saying how to go on.

    Raises:
        NotAllowedError: it is.
    """
    allowed = environment.config.environment.serving
    if allowed == "blocked":
        raise NotAllowedError(
            f"run {reference} cannot be served: environment.serving is {allowed} in "
            f"{environment.name}",
            where="config/base.yaml",
            hint="serving needs an online store, which LOCAL does not have: lodestar infra up, then "
            f"--env dev; or score files with: lodestar batch-inference --run-id {reference}",
        )
