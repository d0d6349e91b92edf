"""From a run to the files that put its API into production."""

from dataclasses import dataclass
from pathlib import Path

from lodestar.artifact.contents import CONTENTS, ArtifactContents, read_contents
from lodestar.artifact.manifest import verify
from lodestar.artifact.register import OpenedRun
from lodestar.artifact.wrapper import PAYLOAD
from lodestar.deploy.folder import Content, Written, write_files
from lodestar.deploy.service import Resources, Scale, Service, check_image, check_name, name_of
from lodestar.deploy.settings import read_settings
from lodestar.deploy.targets import Target, the_target
from lodestar.deploy.variables import needed_variables, plain_variables, refuse_secrets
from lodestar.errors import NotAllowedError
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.progress import Progress
from lodestar.pipelines.deploy_image import ImageOptions, below_project, build_context
from lodestar.settings.loading import Environment
from lodestar.settings.permissions import check_serving_allowed

__all__ = ["Asked", "Rendered", "render"]

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
        options = ImageOptions(
            known=output / IMAGE / "requirements.txt",
            base=asked.base,
            requirements=asked.requirements,
            adapter=settings.get("adapter"),
        )
        context = build_context(environment, service, run, contents, options)
        tell.stage("Writing")
        everything: dict[str, Content] = {name: text.encode() for name, text in files.items()}
        everything |= {f"{IMAGE}/{name}": content for name, content in context.items()}
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
        writable=() if log is None else (below_project(log.folder, "prediction_log.folder"),),
        calls_out=config.feature_store is not None and config.feature_store.chosen is not None,
        grace_seconds=round(limits.grace_seconds),
        answer_seconds=round(limits.answer_seconds),
        concurrency=limits.concurrency,
    )


def _commands(target: Target, service: Service, output: Path) -> tuple[str, str, str]:
    here = Path.cwd()
    folder = str(output.relative_to(here) if output.is_relative_to(here) else output)
    return (
        f"docker build --tag {service.image} {folder}/{IMAGE}",
        f"docker push {service.image}",
        target.apply.format(folder=folder, name=service.name),
    )
