"""The build context of a run's image: its artifact, config, lock, and Lodestar itself."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lodestar.artifact.contents import ArtifactContents
from lodestar.artifact.local_runs import BAKED
from lodestar.artifact.lock import Lock, installed
from lodestar.artifact.register import OpenedRun
from lodestar.deploy.dockerfile import IGNORED, base_image, dockerfile
from lodestar.deploy.folder import Content
from lodestar.deploy.requirements import Pins, Wanted, checked_lock, locked
from lodestar.deploy.service import HOME, Service, check_base
from lodestar.deploy.variables import config_files
from lodestar.deploy.wheel import DISTRIBUTION, Wheel, own_wheel
from lodestar.errors import UsageError
from lodestar.settings.config import Config
from lodestar.settings.loading import Environment

__all__ = ["ImageOptions", "below_project", "build_context"]

# What serving imports beside the artifact's own packages, by what holds the features.
EXTRAS = {None: (), "redis": (), "feast": ("feast",), "dynamodb": ("dynamodb",)}


@dataclass(frozen=True)
class ImageOptions:
    """What to build on and to install; `known` is the lock of the last rendering, if there was one.

    `adapter` is an image that Lambda's web adapter is copied from.
    """

    known: Path
    base: str | None = None
    requirements: Path | None = None
    adapter: str | None = None


def build_context(
    environment: Environment,
    service: Service,
    run: OpenedRun,
    contents: ArtifactContents,
    options: ImageOptions,
) -> dict[str, Content]:
    """Everything that goes into the image, and nothing else, by its path in the context.

    Raises:
        UsageError: the packages cannot be locked, or the config names what an image cannot have.
    """
    lock, wheel = contents.lock, own_wheel()
    base = check_base(options.base or base_image(lock.python))
    texts = {
        "Dockerfile": dockerfile(service, base=base, adapter=options.adapter),
        ".dockerignore": IGNORED,
        "requirements.txt": _requirements(environment.config, lock, wheel, options),
        "lodestar.txt": wheel.requirement,
    }
    files: dict[str, Content] = {name: text.encode() for name, text in texts.items()}
    files[f"wheels/{wheel.name}"] = wheel.content
    files |= {f"project/{name}": file for name, file in _project(environment, run, contents)}
    return files


def _requirements(config: Config, lock: Lock, wheel: Wheel, options: ImageOptions) -> str:
    pins = Pins(lock.direct, lock.all)
    if options.requirements is not None:
        return checked_lock(options.requirements, pins)
    extras = _extras(config)
    wanted = Wanted(wheel, extras, installed(DISTRIBUTION, extras), pins, lock.python)
    return locked(wanted, known=options.known)


def _project(
    environment: Environment, run: OpenedRun, contents: ArtifactContents
) -> Iterator[tuple[str, Content]]:
    """What serving reads of a project: config, declarations where it goes by them, the artifact."""
    project = environment.project
    for name in config_files(environment.name):
        yield name, project / name
    for name in _certificates(environment):
        yield name, project / name
    selection = contents.augmenter_config_snapshot
    if selection.get("features") and selection.get("views") is None:
        for path in sorted((project / "features").glob("*.yaml")):
            yield f"features/{path.name}", path
    place = f"{BAKED}/{run.digest}"
    for path in sorted(run.folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"{place}/{path.relative_to(run.folder).as_posix()}", path
    named: Mapping[str, str] = {
        "run_id": run.run_id,
        "run_name": run.run_name,
        "digest": run.digest,
        "folder": f"{HOME}/{place}",
    }
    yield f"{BAKED}/{run.run_id}.json", json.dumps(named).encode()


def _certificates(environment: Environment) -> Iterator[str]:
    store = environment.config.feature_store
    if store is None or store.redis is None or store.redis.ca_file is None:
        return
    name = below_project(store.redis.ca_file, "feature_store.redis.ca_file")
    if not (environment.project / name).is_file():
        raise UsageError(
            f"{name} is no file of the project", where="config:feature_store.redis.ca_file"
        )
    yield name


def below_project(name: str, key: str) -> str:
    """A folder or file that the image has at the same place.

    Raises:
        UsageError: it lies elsewhere.
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise UsageError(
            f"{name} lies outside the project, and the image has nothing but the project",
            where=f"config:{key}",
            hint="a path below the project",
        )
    return path.as_posix()


def _extras(config: Config) -> tuple[str, ...]:
    """Lodestar's extras that serving needs in this environment."""
    store = config.feature_store
    if store is not None and store.repository is not None:
        raise UsageError(
            "a team's own Feast repository is not put into an image",
            where="config:feature_store.feast.repository",
            hint="name registry and online store in the config instead: docs/feast.md",
        )
    chosen = None if store is None else store.chosen
    native = ("native",) if config.serving.native else ()
    traced = ("otel",) if config.tracing.enabled else ()
    return ("serving", *native, *traced, *EXTRAS[chosen])
