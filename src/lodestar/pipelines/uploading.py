"""Bring finished trainings that wait on this machine into the tracking store."""

from dataclasses import dataclass

from lodestar.artifact.store import SavedRun
from lodestar.errors import ArtifactError
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.progress import Progress
from lodestar.settings.loading import Environment

__all__ = ["Uploaded", "upload"]


@dataclass(frozen=True)
class Uploaded:
    """The runs that were made of what waited, and what could not be read."""

    runs: tuple[SavedRun, ...]
    damaged: tuple[ArtifactError, ...]


def upload(environment: Environment, *, tell: Progress) -> Uploaded:
    """Upload all that waits for this environment, the oldest first; what is done is not done again.

    Raises:
        ExternalError: the server does not answer or refuses; what is left still waits.
    """
    store = EnvironmentFactory(environment).store()
    waiting = store.waiting()
    runs: list[SavedRun] = []
    damaged = list(waiting.damaged)
    for staged in waiting.runs:
        tell.stage(f"Uploading {staged.record.name}")
        try:
            saved = store.upload(staged)
        except ArtifactError as error:
            damaged.append(error)
            continue
        if saved is not None:
            runs.append(saved)
    return Uploaded(tuple(runs), tuple(damaged))
