"""From a run to the files that put its API into production."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lodestar.artifact.contents import CONTENTS, ArtifactContents, read_contents
from lodestar.artifact.local_runs import BAKED
from lodestar.artifact.lock import installed
from lodestar.artifact.manifest import verify
from lodestar.artifact.register import OpenedRun
from lodestar.artifact.wrapper import PAYLOAD
from lodestar.deploy.dockerfile import IGNORED, base_image, dockerfile
from lodestar.deploy.folder import Written, write_files
from lodestar.deploy.requirements import Pins, Wanted, checked_lock, locked
from lodestar.deploy.service import (
    HOME,
    Resources,
    Scale,
    Service,
    check_base,
    check_image,
    check_name,
    name_of,
)
from lodestar.deploy.settings import read_settings
from lodestar.deploy.targets import Target, the_target
from lodestar.deploy.variables import (
    config_files,
    needed_variables,
    plain_variables,
    refuse_secrets,
)
from lodestar.deploy.wheel import DISTRIBUTION, own_wheel
from lodestar.errors import NotAllowedError, UsageError
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.progress import Progress
from lodestar.settings.config import Config
from lodestar.settings.loading import Environment
from lodestar.settings.permissions import check_serving_allowed

__all__ = ["Asked", "Rendered", "render"]

# What serving imports beside the artifact's own packages, by what holds the features.
EXTRAS = {None: (), "redis": (), "feast": ("feast",), "dynamodb": ("dynamodb",)}
IMAGE = "image"


@dataclass(frozen=True)
class Asked:
    """The command's options; None takes what is usual for the target."""

    target: str
    image: str | None = None
    output: Path | None = None
    name: str | None = None
    replicas: int | None = None
    least: int | None = None
    most: int | None = None
    cpu: str | None = None
    memory: str | None = None
    variables: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    base: str | None = None
    requirements: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class Rendered:
    """What was written, and the commands that build the image, push it, and bring it up."""

    target: str
    service: Service
    written: Written
    commands: tuple[str, str, str]


def render(environment: Environment, reference: str, asked: Asked, *, tell: Progress) -> Rendered:
    """Write everything that it takes to serve a run; nothing is built and nobody is called.

    Raises:
        NotAllowedError: this environment serves nothing, or would let anyone ask.
        UsageError: no such run or target, or something that the target does not have.
        SettingsError: a secret stands in the config itself.
        ArtifactError: the artifact is not what the run recorded.
    """
    target = the_target(asked.target)
    settings = read_settings(target.name, target.settings, asked.settings)
    check_image(asked.image)
    check_serving_allowed(environment, reference)
    _check_authentication(environment)
    refuse_secrets(environment.project, environment.name)
    tell.stage("Verifying the artifact")
    with EnvironmentFactory(environment).store().opened(reference) as run:
        for note in run.notes:
            tell.note(note)
        verify(run.folder, expected=run.digest)
        contents = read_contents(run.folder / PAYLOAD / CONTENTS)
        service = _service(environment, target, run, contents, asked)
        files = target.render(service, settings)
        output = asked.output or environment.project / "deploy" / target.name
        tell.stage("Locking the image's packages")
        adapter = settings.get("adapter")
        image = _image(environment, service, run, contents, asked, output, adapter=adapter)
        tell.stage("Writing")
        everything = {name: text.encode() for name, text in files.items()} | image
        written = write_files(output, everything, force=asked.force)
    return Rendered(target.name, service, written, _commands(target, service, output))


def _check_authentication(environment: Environment) -> None:
    """A container listens on all of its addresses, and `serve-api` then refuses to start."""
    if not environment.config.serving.authentication.required:
        raise NotAllowedError(
            f"in a container the API listens on every address, and in {environment.name} nobody has "
            "to say who they are: serve-api would refuse to start",
            where="config:serving.authentication",
            hint="serving: {authentication: {api_keys: ['${LODESTAR_API_KEY_SHA256}']}}, the sha256 of "
            "a key: printf %s KEY | sha256sum",
        )


def _service(
    environment: Environment,
    target: Target,
    run: OpenedRun,
    contents: ArtifactContents,
    asked: Asked,
) -> Service:
    config, limits = environment.config, environment.config.serving.limits
    needed = needed_variables(environment.project, environment.name)
    plain, secrets = plain_variables(list(asked.variables), needed)
    log = config.serving.prediction_log
    return Service(
        name=check_name(asked.name or name_of(contents.recipe_name)),
        image=check_image(asked.image),
        run_id=run.run_id,
        run_name=run.run_name,
        recipe=contents.recipe_name,
        digest=run.digest,
        environment=environment.name,
        resources=Resources.parse(asked.cpu or "1", asked.memory or target.memory),
        scale=Scale.of(asked.replicas, asked.least, asked.most, target.scale),
        secrets=secrets,
        variables=plain,
        writable=() if log is None else (_below_project(log.folder, "prediction_log.folder"),),
        calls_out=config.feature_store is not None and config.feature_store.chosen is not None,
        grace_seconds=round(limits.grace_seconds),
        answer_seconds=round(limits.answer_seconds),
        concurrency=limits.concurrency,
    )


def _image(
    environment: Environment,
    service: Service,
    run: OpenedRun,
    contents: ArtifactContents,
    asked: Asked,
    output: Path,
    *,
    adapter: str | None,
) -> dict[str, bytes | Path]:
    """The build context: everything that goes into the image, and nothing else."""
    lock, wheel = contents.lock, own_wheel()
    pins = Pins(lock.direct, lock.all)
    if asked.requirements is not None:
        requirements = checked_lock(asked.requirements, pins)
    else:
        extras = _extras(environment.config)
        here = installed(DISTRIBUTION, extras)
        wanted = Wanted(wheel, extras, here, pins, lock.python)
        requirements = locked(wanted, known=output / IMAGE / "requirements.txt")
    base = check_base(asked.base or base_image(lock.python))
    texts = {
        "Dockerfile": dockerfile(service, base=base, adapter=adapter),
        ".dockerignore": IGNORED,
        "requirements.txt": requirements,
        "lodestar.txt": wheel.requirement,
    }
    files: dict[str, bytes | Path] = {name: text.encode() for name, text in texts.items()}
    files[f"wheels/{wheel.name}"] = wheel.content
    files |= {f"project/{name}": file for name, file in _project(environment, run, contents)}
    return {f"{IMAGE}/{name}": content for name, content in files.items()}


def _project(
    environment: Environment, run: OpenedRun, contents: ArtifactContents
) -> Iterator[tuple[str, bytes | Path]]:
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
    name = _below_project(store.redis.ca_file, "feature_store.redis.ca_file")
    if not (environment.project / name).is_file():
        raise UsageError(
            f"{name} is no file of the project", where="config:feature_store.redis.ca_file"
        )
    yield name


def _below_project(name: str, key: str) -> str:
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
    return ("serving", *native, *EXTRAS[chosen])


def _commands(target: Target, service: Service, output: Path) -> tuple[str, str, str]:
    here = Path.cwd()
    folder = str(output.relative_to(here) if output.is_relative_to(here) else output)
    return (
        f"docker build --tag {service.image} {folder}/{IMAGE}",
        f"docker push {service.image}",
        target.apply.format(folder=folder, name=service.name),
    )
