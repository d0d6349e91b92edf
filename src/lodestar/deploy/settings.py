"""What a target must be told beyond what all of them take: `--set key=value`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lodestar.errors import UsageError, choices

__all__ = ["Setting", "read_settings"]

# Roles, resource ids, addresses of images: nothing that a document or a shell reads otherwise.
_PLAIN = re.compile(r"[\w./:@,+-]+")


@dataclass(frozen=True)
class Setting:
    """One key. Without a default it has to be given."""

    name: str
    help: str
    default: str | None = None


def read_settings(target: str, known: Sequence[Setting], given: Sequence[str]) -> dict[str, str]:
    """The values of a target's keys.

    Raises:
        UsageError: a key that the target does not have, one that is missing, or no key=value.
    """
    values = _given(target, known, given)
    missing = [item for item in known if item.default is None and item.name not in values]
    if missing:
        lines = [f"--set {item.name}=…   {item.help}" for item in missing]
        raise UsageError(f"{target} needs to be told more", hint="add\n    " + "\n    ".join(lines))
    return {item.name: values.get(item.name, item.default or "") for item in known}


def _given(target: str, known: Sequence[Setting], given: Sequence[str]) -> Mapping[str, str]:
    names = [item.name for item in known]
    values: dict[str, str] = {}
    for item in given:
        name, sign, value = item.partition("=")
        if not sign or not _PLAIN.fullmatch(value):
            raise UsageError(f"--set {item!r} is not key=value", hint=_listed(known))
        if name not in names:
            hint = choices(name, names) if names else f"{target} takes none"
            raise UsageError(f"{target} has no setting {name!r}", hint=hint)
        if name in values:
            raise UsageError(f"--set {name} is given twice")
        values[name] = value
    return values


def _listed(known: Sequence[Setting]) -> str:
    return "; ".join(f"{item.name}: {item.help}" for item in known) or "there are none"
