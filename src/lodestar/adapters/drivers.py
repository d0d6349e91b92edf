"""Drivers load when they are chosen; that one is not installed is said with the extra that brings it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from lodestar.errors import ExternalError, UsageError

__all__ = ["driver", "from_extra"]


def driver(name: str, *, store: str, extra: str, package: str = "", also: str = "") -> Any:  # noqa: ANN401 -- a module
    """Import a store's driver; a broken one shows its own trace.

    `package`: what it is installed as, where that is another name. `also`: a package that it needs and
    that the extra brings.

    Raises:
        ExternalError: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not missing or (missing != also and not f"{name}.".startswith(f"{missing}.")):
            raise
        raise ExternalError(
            f"{store} needs the package {package or missing}, which is not installed",
            hint=_install(extra),
        ) from error


@contextmanager
def from_extra(extra: str, *packages: str) -> Iterator[None]:
    """Import in the block what needs these packages; broken ones show their own trace.

    Raises:
        UsageError: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in packages:
            raise
        raise UsageError(
            f"the Python package {error.name} is not installed", hint=_install(extra)
        ) from error


def _install(extra: str) -> str:
    return f"pip install 'lodestar-ml[{extra}]'"
