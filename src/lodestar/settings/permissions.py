"""What an environment's config does not allow."""

import ipaddress

from lodestar.errors import NotAllowedError
from lodestar.settings.loading import Environment
from lodestar.settings.serving import Serving

__all__ = ["check_exposure", "check_serving_allowed"]

EXAMPLE = """put keys, as sha256 in hex, into the environment's config:
serving:
  authentication:
    api_keys: ["${LODESTAR_API_KEY_SHA256}"]   # printf %s KEY | sha256sum
or serve on 127.0.0.1, behind a proxy that authenticates"""


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


def check_exposure(settings: Serving) -> None:
    """Refuse to listen where others can reach the API unless they must say who they are.

    Raises:
        NotAllowedError: the host is not this machine's own loopback, and no authentication is set.
    """
    if not settings.authentication.required and not _is_loopback(settings.host):
        raise NotAllowedError(
            f"serving on {settings.host} without authentication would let anyone ask",
            where="config:serving.host",
            hint=EXAMPLE,
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may resolve to anything
        return False
