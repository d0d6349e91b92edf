"""The exact versions that an artifact was made with, from the installed distributions themselves."""

import ast
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lodestar.errors import ArtifactError

__all__ = ["Lock", "compare", "imported_packages", "installed", "lock_of"]

# What any artifact needs to be loaded: plain MLflow, and what the carried code imports.
BASE = ("mlflow", "numpy", "pandas", "pyarrow")


@dataclass(frozen=True)
class Lock:
    """Pinned versions; `direct` are those whose behaviour decides predictions."""

    python: str
    direct: dict[str, str]
    all: dict[str, str]

    def requirements(self) -> list[str]:
        """`name==version` lines, complete with everything that they need in turn."""
        return [f"{name}=={version}" for name, version in sorted(self.all.items())]

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {"python": self.python, "direct": self.direct, "all": self.all}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Lock":
        """Read what `to_json` wrote."""
        return cls(value["python"], dict(value["direct"]), dict(value["all"]))


def lock_of(packages: Iterable[str]) -> Lock:
    """Pin what these top-level packages need, and what every artifact needs."""
    named = [*BASE, *(name for package in packages for name in _distributions(package))]
    direct = sorted({canonicalize_name(name) for name in named})
    everything: dict[str, str] = {}
    for name in direct:
        _close(name, frozenset(), everything, set())
    return Lock(
        python=platform.python_version(),
        direct={name: everything[name] for name in direct},
        all=dict(sorted(everything.items())),
    )


def installed(name: str, extras: Iterable[str]) -> dict[str, str]:
    """The version of a distribution and of all that it needs with these extras, as installed here."""
    found: dict[str, str] = {}
    _close(canonicalize_name(name), frozenset(extras), found, set())
    return dict(sorted(found.items()))


def compare(lock: Lock) -> tuple[str, ...]:
    """Hold the installed versions against a lock; return what differs harmlessly, in words.

    Raises:
        ArtifactError: a package is missing, or its major version differs.
    """
    warnings: list[str] = []
    broken: list[str] = []
    for name, locked in lock.direct.items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            broken.append(f"{name} {locked} is not installed")
            continue
        if installed == locked:
            continue
        words = f"{name} {installed} is installed, and the artifact was made with {locked}"
        (warnings if Version(installed).major == Version(locked).major else broken).append(words)
    if broken:
        pins = " ".join(f"'{name}=={version}'" for name, version in lock.direct.items())
        raise ArtifactError("; ".join(broken), hint=f"pip install {pins}")
    made, here = Version(lock.python), sys.version_info
    if (made.major, made.minor) != (here.major, here.minor):
        warnings.append(f"Python {here.major}.{here.minor} runs what {lock.python} made")
    return tuple(warnings)


def imported_packages(files: Iterable[Path]) -> set[str]:
    """The top-level packages that these source files import, the standard library's left out."""
    found: set[str] = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names


def _distributions(package: str) -> list[str]:
    """The distributions that install a top-level package: its namesake, else by their file lists."""
    try:
        return [metadata.distribution(package).metadata["Name"]]
    except metadata.PackageNotFoundError:
        return sorted(
            {found.metadata["Name"] for found in metadata.distributions() if _has(found, package)}
        )


def _has(distribution: metadata.Distribution, package: str) -> bool:
    """Whether it installs a top-level package. `packages_distributions` parses every file's line."""
    files = (distribution.read_text("RECORD") or "").splitlines()
    if any(line.startswith((f"{package}/", f"{package}.")) for line in files):
        return True
    return package in (distribution.read_text("top_level.txt") or "").split()


def _close(
    name: str, extras: frozenset[str], found: dict[str, str], seen: set[tuple[str, frozenset[str]]]
) -> None:
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return  # an optional part of the platform that is not installed here
    found[name] = distribution.version
    for requirement in _needed(distribution.requires or (), extras):
        _close(canonicalize_name(requirement.name), frozenset(requirement.extras), found, seen)


def _needed(lines: Iterable[str], extras: frozenset[str]) -> Iterator[Requirement]:
    for line in lines:
        requirement = Requirement(line)
        marker = requirement.marker
        wanted = [{"extra": extra} for extra in ("", *extras)]
        if marker is None or any(marker.evaluate(environment) for environment in wanted):
            yield requirement
