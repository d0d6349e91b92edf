"""Which of many names a pattern means: `*`, `?` and `[…]` within a folder, `**` across folders."""

import re
from collections.abc import Iterable

from lodestar.errors import DataError, choices

__all__ = ["fixed_part", "is_pattern", "matching"]

_SIGNS = re.compile(r"[*?\[]")
_PARTS = re.compile(r"\*|\?|\[!?(?:\][^\]/]*|[^\]/]+)\]|[^*?\[]+|\[")


def is_pattern(name: str) -> bool:
    """Whether it may mean several names."""
    return _SIGNS.search(name) is not None


def fixed_part(pattern: str) -> str:
    """The folders before the first one that may be several, with their last slash; all of a folder."""
    found = _SIGNS.search(pattern)
    before = pattern if found is None else pattern[: found.start()]
    return before[: before.rfind("/") + 1]


def matching(pattern: str, names: Iterable[str], *, suffixes: tuple[str, ...]) -> list[str]:
    """The names of data files that a pattern means, in order; below a folder `data/` all.

    What begins with `_` or `.`, or lies in a folder that does, is no data: other programs put their own
    notes there.

    Raises:
        DataError: there are none, or some have other suffixes than the rest, or none that is known.
    """
    asked = re.compile(_expression(pattern))
    root = len(fixed_part(pattern))
    found = sorted(name for name in names if asked.fullmatch(name) and not _hidden(name[root:]))
    if not found:
        near = [name for name in names if not _hidden(name[root:])]
        raise DataError(f"no file is meant by {pattern}", hint=choices(pattern, near))
    kinds = {_suffix(name): name for name in reversed(found)}
    for suffix, name in kinds.items():
        if suffix not in suffixes:
            raise DataError(
                f"{name}, which {pattern} means, is no data file",
                hint=f"write a pattern such as {fixed_part(pattern)}*{suffixes[0]}",
            )
    if len(kinds) > 1:
        raise DataError(
            f"{pattern} means files of several kinds: {' and '.join(sorted(kinds.values()))}",
            hint=f"write a pattern such as {fixed_part(pattern)}*{max(kinds)}",
        )
    return found


def _expression(pattern: str) -> str:
    if pattern.endswith("/"):
        return re.escape(pattern) + ".+"
    *folders, last = pattern.split("/")
    within = ["(?:[^/]+/)*" if one == "**" else _within_one(one) + "/" for one in folders]
    return "".join([*within, ".+" if last == "**" else _within_one(last)])


def _within_one(segment: str) -> str:
    """The expression of what stands between two slashes."""
    said = {"*": "[^/]*", "?": "[^/]"}
    parts = _PARTS.findall(segment)
    return "".join(said.get(part) or _class(part) or re.escape(part) for part in parts)


def _class(part: str) -> str:
    """`[a-z]`, or `[!a-z]`; nothing for what is no such thing."""
    if len(part) == 1 or not part.startswith("["):
        return ""
    inner = part[1:-1].replace("\\", "\\\\").replace("[", "\\[")
    return f"(?!/)[^{inner[1:]}]" if inner.startswith("!") else f"(?!/)[{inner}]"


def _hidden(name: str) -> bool:
    return any(part.startswith(("_", ".")) for part in name.split("/"))


def _suffix(name: str) -> str:
    last = name.rpartition("/")[2]
    return f".{last.rpartition('.')[2]}" if "." in last else ""
