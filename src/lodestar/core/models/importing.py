"""A class by its dotted path: looked up in the allow-list first, imported second."""

import importlib
import inspect
from collections.abc import Sequence
from types import ModuleType

from lodestar.errors import Problem, SettingsError, choices

__all__ = ["import_class"]

_EXTRAS = {"causalml": "causal", "catboost": "catboost"}


def import_class(
    class_path: str, allowed: Sequence[str], *, where: str, methods: Sequence[str]
) -> type:
    """Import `package.module.Class`.

    Raises:
        SettingsError: not on the allow-list, not installed, no such class, or without `methods`.
    """
    module_name, _, class_name = class_path.rpartition(".")
    if not _is_allowed(class_path, allowed):
        package = module_name.partition(".")[0]
        raise SettingsError.one(
            f"{class_path} may not be imported in this environment",
            where=where,
            hint=f"add `- {package}` to model.allowed_modules of the environment's config "
            f"(now: {', '.join(allowed) or 'empty'})",
        )
    module = _import(module_name, where)
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        names = [name for name in dir(module) if inspect.isclass(getattr(module, name, None))]
        raise SettingsError.one(
            f"{module_name} has no class {class_name}", where=where, hint=choices(class_name, names)
        )
    lacking = [name for name in methods if not callable(getattr(found, name, None))]
    if lacking:
        raise SettingsError.one(
            f"{class_path} has no method {' and no method '.join(lacking)}", where=where
        )
    return found


def _is_allowed(class_path: str, allowed: Sequence[str]) -> bool:
    return any(
        prefix in {"*", class_path} or class_path.startswith(f"{prefix}.") for prefix in allowed
    )


def _import(name: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # Only a missing module on the way to the one asked for is the recipe's mistake; a package
        # that is broken inside shows its own traceback.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        package = name.partition(".")[0]
        extra = _EXTRAS.get(package)
        hint = f"pip install 'lodestar-ml[{extra}]'" if extra else _near(name, error.name)
        raise SettingsError(
            [Problem(f"there is no module {error.name!r} to import", where, hint, extra)]
        ) from error


def _near(name: str, missing: str) -> str:
    parent = missing.rpartition(".")[0]
    if not parent:
        return f"install the package that holds {name}, or correct the path"
    members = [
        member for member in dir(importlib.import_module(parent)) if not member.startswith("_")
    ]
    return choices(missing.rpartition(".")[2], members)
