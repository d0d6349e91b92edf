"""YAML files as values that know where each of their keys was written."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from lodestar.errors import Problem, SettingsError
from lodestar.settings.env_file import URIS
from lodestar.settings.section import EnvText

__all__ = ["VARIABLE", "KeyPath", "Source", "parse_value", "read_yaml"]

KeyPath = tuple[str | int, ...]

LARGEST_FILE = 96 * 1024
MOST_NODES = 20_000
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str")}
_PLAIN_GROUPS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
# The parser's time grows with the square of the open brackets.
_DEEP = re.compile(r"(?:[\[{]\s*){100}")
VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)(?::([^}]*))?\}")


@dataclass
class Source:
    """A mapping with the line of each key; problems found on the way are kept, not raised."""

    value: dict[str, Any] = field(default_factory=dict)
    marks: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    name: str = ""

    def where(self, path: KeyPath) -> str:
        """Word a place as `file:line:key`, falling back to the nearest key that was written."""
        dotted = ".".join(str(part) for part in path)
        for length in range(len(path), -1, -1):
            mark = self.marks.get(path[:length])
            if mark is not None:
                return f"{mark}:{dotted}" if dotted else mark
        return f"{self.name}:{dotted}"

    def overlay(self, other: "Source") -> "Source":
        """Lay another file over this one: mappings merge, everything else is replaced."""
        merged = Source(
            value=_merge(self.value, other.value),
            marks={**self.marks, **other.marks},
            problems=[*self.problems, *other.problems],
            name=other.name,
        )
        merged.marks[()] = self.marks.get((), f"{self.name}:1")
        return merged

    def put(self, path: tuple[str, ...], value: object, mark: str) -> None:
        """Set one key, as `--set` does; missing mappings on the way are made."""
        place = self.value
        for length, part in enumerate(path[:-1], start=1):
            inner = place.get(part)
            if not isinstance(inner, dict):
                inner = place[part] = {}
                self.marks[path[:length]] = mark
            place = inner
        place[path[-1]] = value
        for known in [known for known in self.marks if known[: len(path)] == path]:
            del self.marks[known]
        self.marks[path] = mark


def read_yaml(path: Path, name: str, *, variables: Mapping[str, str] | None = None) -> Source:
    """Read one file; with `variables`, `${NAME}` and `${NAME:default}` are filled in from them."""
    source = Source(name=name)
    try:
        if path.stat().st_size > LARGEST_FILE:
            return _failed(
                source, f"{name}:1", f"larger than {LARGEST_FILE // 1024} KiB: not a settings file"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        return _failed(source, name, f"cannot be read: {reason}")
    node = _compose(text, source)
    if node is None:
        if not source.problems:
            _failed(source, f"{name}:1", "is empty")
        return source
    if not isinstance(node, MappingNode):
        return _failed(source, f"{name}:1", "must be a mapping of keys to values")
    if _expanded_size(node, {}) > MOST_NODES:
        return _failed(source, f"{name}:1", f"expands to more than {MOST_NODES} values")
    source.marks[()] = f"{name}:1"
    source.value = _Reader(source, variables).mapping(node, ())
    return source


def parse_value(text: str) -> Any:  # noqa: ANN401 -- a YAML value is any of its plain types
    """Read the right-hand side of `--set key=value` as YAML.

    Raises:
        SettingsError: it is no YAML value.
    """
    source = Source(name="--set")
    node = _compose(text, source)
    value = None if node is None else _Reader(source, None).value(node, ())
    if source.problems:
        raise SettingsError(source.problems)
    return value


def _compose(text: str, source: Source) -> Node | None:
    try:
        if _DEEP.search(text):
            raise RecursionError
        node: Node | None = YAML(typ="safe", pure=True).compose(StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        what = error.problem or error.context or "not valid YAML"
        hint = "indent with spaces" if "'\\t'" in what else None
        source.problems.append(Problem(f"not valid YAML: {what}", f"{source.name}{line}", hint))
    except (ReaderError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else "a control character"
        source.problems.append(Problem(f"not valid YAML: {reason}", f"{source.name}:1"))
    else:
        return node
    return None


def _failed(source: Source, where: str, what: str) -> Source:
    source.problems.append(Problem(what, where))
    return source


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, SequenceNode):
        yield from node.value


def _expanded_size(node: Node, sizes: dict[int, int]) -> int:
    """Count values as if every alias were written out, without writing any out."""
    known = sizes.get(id(node))
    if known is not None:
        return known
    sizes[id(node)] = MOST_NODES + 1  # an alias to an ancestor never ends
    sizes[id(node)] = 1 + sum(_expanded_size(child, sizes) for child in _children(node))
    return sizes[id(node)]


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = _merge(below, value)
        else:
            merged[key] = value
    return merged


@lru_cache(maxsize=1)
def _constructor() -> Any:  # noqa: ANN401 -- ruamel publishes no type for it
    return YAML(typ="safe", pure=True).constructor


class _Reader:
    """Turns nodes into plain values, noting lines and problems in the source."""

    def __init__(self, source: Source, variables: Mapping[str, str] | None) -> None:
        self._source = source
        self._variables = variables

    def value(self, node: Node, path: KeyPath) -> Any:  # noqa: ANN401 -- any plain YAML type
        if isinstance(node, MappingNode | SequenceNode) and node.tag not in _PLAIN_GROUPS:
            self._problem(f"the tag {node.tag!r} is not allowed", path, node)
            return None
        if isinstance(node, MappingNode):
            return self.mapping(node, path)
        if isinstance(node, SequenceNode):
            items = []
            for position, item in enumerate(node.value):
                self._mark((*path, position), item)
                items.append(self.value(item, (*path, position)))
            return items
        return self._scalar(node, path)

    def mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str):
                self._problem("a key must be a plain word", path, key_node)
                continue
            if key in found:
                first = self._source.where((*path, key)).split(":")[1]
                self._problem(
                    f"the key {key!r} stands twice, first in line {first}", path, key_node
                )
                continue
            self._mark((*path, key), key_node)
            found[key] = self.value(value_node, (*path, key))
        return found

    def _scalar(self, node: Node, path: KeyPath) -> Any:  # noqa: ANN401 -- any plain YAML type
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        if node.tag not in _PLAIN_TAGS:
            self._problem(f"the tag {node.tag!r} is not allowed", path, node)
            return None
        try:
            value = _constructor().construct_object(node)
        except (ConstructorError, ValueError):
            self._problem(f"cannot be read as {node.tag.rsplit(':', 1)[-1]}", path, node)
            return None
        if isinstance(value, str) and self._variables is not None and "${" in value:
            return self._filled_in(value, path, node)
        return value

    def _filled_in(self, text: str, path: KeyPath, node: Node) -> str:
        variables = self._variables or {}

        def fill(match: re.Match[str]) -> str:
            name, default = match.group(1), match.group(2)
            value = variables.get(name) or default
            if value:
                return value
            state = "empty" if name in variables else "not set"
            self._problem(
                f"the environment variable {name} is {state}",
                path,
                node,
                hint=_how_to_set(name),
            )
            return ""

        return EnvText(VARIABLE.sub(fill, text))

    def _mark(self, path: KeyPath, node: Node) -> None:
        self._source.marks[path] = f"{self._source.name}:{node.start_mark.line + 1}"

    def _problem(self, what: str, path: KeyPath, node: Node, hint: str | None = None) -> None:
        dotted = ".".join(str(part) for part in path)
        where = f"{self._source.name}:{node.start_mark.line + 1}" + (f":{dotted}" if dotted else "")
        self._source.problems.append(Problem(what, where, hint))


def _how_to_set(name: str) -> str:
    if name in URIS:
        return f"`lodestar infra up` sets it; for a server of your own: export {name}=…"
    return f"export {name}=… or write a default: ${{{name}:default}}"


def environment_variables() -> Mapping[str, str]:
    """The process's own environment, the one place where settings look at it."""
    return os.environ
