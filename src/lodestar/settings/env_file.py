"""Variables from a file that `lodestar infra up` writes; what the process has itself comes first."""

import re
from collections.abc import Mapping
from pathlib import Path

from lodestar.errors import SettingsError

__all__ = ["ENV_FILE", "FEAST", "MLFLOW", "POSTGRES", "REDIS", "URIS", "with_env_file"]

ENV_FILE = ".lodestar/infra.env"
POSTGRES, REDIS, MLFLOW = "LODESTAR_POSTGRES_URI", "LODESTAR_REDIS_URI", "LODESTAR_MLFLOW_URI"
FEAST = "LODESTAR_FEAST_URI"
URIS = (POSTGRES, FEAST, REDIS, MLFLOW)
_LINE = re.compile(r"^(?:export )?([A-Za-z_]\w*)=(.*)$")


def with_env_file(variables: Mapping[str, str], project: Path) -> dict[str, str]:
    """The file's `NAME=value` lines below the variables given; values are taken as they stand.

    Raises:
        SettingsError: the file cannot be read, or a line is none of a variable.
    """
    path = project / ENV_FILE
    if not path.is_file():
        return dict(variables)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError.one("cannot be read", where=ENV_FILE) from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.match(line.strip())
        if match is None:  # not repeated: it may hold half a password
            raise SettingsError.one("is no NAME=value line", where=f"{ENV_FILE}:{number}")
        found[match.group(1)] = match.group(2)
    return {**found, **variables}
