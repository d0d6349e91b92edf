"""Which variables a config reads, and whether it holds a secret itself, from its files as written."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, SecretStr

from lodestar.errors import Problem, SettingsError, UsageError
from lodestar.settings.config import Config
from lodestar.settings.env_file import with_env_file
from lodestar.settings.loading import LOCAL
from lodestar.settings.yaml_source import VARIABLE, KeyPath, Source, read_yaml

__all__ = [
    "config_files",
    "needed_variables",
    "plain_variables",
    "refuse_secrets",
    "with_stand_ins",
]

# Passes for a key's sha256, and is none.
STAND_IN = "0" * 64

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_PASSWORD = re.compile(
    r"://[^/@\s:]*:[^/@\s]+@|[?&;](?:password|passwd|pwd|token|secret|access_key|sas)=[^&\s]",
    re.IGNORECASE,
)
_SIGNING_KEY = ("serving", "authentication", "jwt", "key")
_PUBLIC = "PUBLIC KEY-----"


def config_files(environment: str) -> tuple[str, ...]:
    """The config's files, by their path below the project."""
    names = ("base",) if environment == LOCAL else ("base", environment)
    return tuple(f"config/{name}.yaml" for name in names)


def needed_variables(project: Path, environment: str) -> tuple[str, ...]:
    """The names of all `${NAME}` that have no default, sorted; the values are not looked at."""
    found: set[str] = set()
    for source in _sources(project, environment):
        for _, text in _texts(source.value):
            found |= {name for name, default in VARIABLE.findall(text) if not default}
    return tuple(sorted(found))


def with_stand_ins(project: Path, environment: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The variables, with something in place of the secrets that are not set where one renders.

    A rendering needs their names alone. What it does need is left missing: the tracking store, in which
    the run is looked up, and whatever is no secret.
    """
    known = with_env_file(variables, project)
    secrets = {path for path in _secret_keys(Config) if path[0] != "mlflow"}
    found: dict[str, str] = {}
    needed: set[str] = set()
    for source in _sources(project, environment):
        for path, text in _texts(source.value):
            names = {name for name, default in VARIABLE.findall(text) if not default}
            if tuple(part for part in path if isinstance(part, str)) in secrets:
                found |= {name: STAND_IN for name in names if not known.get(name)}
            else:
                needed |= names
    return {**{name: found[name] for name in found if name not in needed}, **known}


def refuse_secrets(project: Path, environment: str) -> None:
    """The config's files go into the image as they are, so no password may stand in them.

    Raises:
        SettingsError: every key where one does.
    """
    problems = [
        Problem(
            "a secret stands in the file, and the image would hold it",
            source.where(path),
            "write ${NAME}, without a default, and keep the value in a secret store",
        )
        for source in _sources(project, environment)
        for path, text in _texts(source.value)
        if _holds_a_secret(path, text)
    ]
    if problems:
        raise SettingsError(problems)


def plain_variables(
    given: list[str], needed: tuple[str, ...]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """What `--variable` says: `NAME=value` is written as it is, `NAME` is one more secret.

    Raises:
        UsageError: no name; or a value for what the config takes from a secret store.
    """
    plain: dict[str, str] = {}
    secrets = set(needed)
    for item in given:
        name, sign, value = item.partition("=")
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"--variable {name!r} is no name of a variable", hint="NAME=value, or NAME"
            )
        if not sign:
            secrets.add(name)
        elif name in needed or _PASSWORD.search(value):
            raise UsageError(
                f"--variable {name}=… would stand in the files for all to read",
                hint=f"--variable {name} alone refers to the target's secret store",
            )
        else:
            plain[name] = value
    return plain, tuple(sorted(secrets - set(plain)))


def _secret_keys(
    section: type[BaseModel], above: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """The keys of a section that hold secrets, and those of the sections below it."""
    for name, field in section.model_fields.items():
        kinds = set(_kinds(field.annotation))
        if SecretStr in kinds:
            yield (*above, name)
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _secret_keys(kind, (*above, name))


def _kinds(annotation: object) -> Iterator[object]:
    """A type, and those that it is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


def _sources(project: Path, environment: str) -> Iterator[Source]:
    for name in config_files(environment):
        yield read_yaml(project / name, name)


def _texts(value: object, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(inner, (*path, key))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _texts(inner, (*path, position))


def _holds_a_secret(path: KeyPath, text: str) -> bool:
    """Whether there is one beside what variables fill in; their defaults stand in the file too."""
    written = VARIABLE.sub(lambda found: found[2] or "", text)
    if path == _SIGNING_KEY:
        return bool(written.strip()) and _PUBLIC not in written
    return _PASSWORD.search(written) is not None
