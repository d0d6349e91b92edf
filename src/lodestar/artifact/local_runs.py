"""What can be told of runs from the local disk alone: no MLflow, no server."""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lodestar.artifact.cache import ArtifactCache
from lodestar.artifact.references import parse_reference
from lodestar.artifact.register import OpenedRun, Register
from lodestar.settings.config import MlflowTracking

__all__ = ["BAKED", "LocalRuns"]

_LOCAL = "sqlite:"
# Below the project: what an image brings along, whatever tracking store its config names.
BAKED = ".lodestar/baked"


class LocalRuns:
    """The register and the artifact cache of one tracking store.

    Beside a local store (SQLite, artifacts in files) the register knows every run. Of a remote one it
    knows the runs whose artifacts were fetched: a whole id or digest can only mean one of them, a
    shorter one could mean another run too, and an alias moves. The same holds of the runs that an image
    was baked with.
    """

    def __init__(self, tracking: MlflowTracking, project: Path) -> None:
        uri = tracking.tracking_uri.get_secret_value()
        self.remote = not uri.startswith(_LOCAL) or "://" in tracking.artifact_root
        cache = project / tracking.cache_root
        register = project / tracking.artifact_root / "register"
        if self.remote:
            register = cache / "register" / _origin(uri, tracking.experiment_name)
        self._register = Register(register)
        self._baked = Register(project / BAKED)
        self._cache = ArtifactCache(cache, keep=tracking.cached_artifacts)

    def find(self, reference: str) -> OpenedRun | None:
        """The run that a reference surely means, its artifact at hand; None where MLflow must be asked.

        Raises:
            UsageError: it is no reference.
        """
        asked = parse_reference(reference)
        if asked.prefix is None:
            return None
        run = self._register.run(asked.prefix) if asked.is_run_id else None
        if run is None and (asked.is_run_id or asked.is_digest):
            run = self._baked.find(asked.prefix)
        if run is None and (asked.is_digest or not self.remote):
            run = self._register.find(asked.prefix)
        return self._whole(run)

    def last_known(self, reference: str) -> OpenedRun | None:
        """The run that a reference meant when the server last answered, and a note that says so."""
        asked = parse_reference(reference)
        alias = asked.prefix is None
        run = self._register.remembered(reference) if alias else self._register.find(reference)
        run = self._whole(run)
        if run is None:
            return None
        last = "when it last answered" if alias else "among the runs whose artifacts are here"
        note = (
            f"the MLflow server does not answer: {reference} is run {run.run_id}, as it was {last}"
        )
        return OpenedRun(run.run_id, run.run_name, run.digest, run.folder, (note,))

    def kept(self, run_id: str, run_name: str, digest: str) -> OpenedRun | None:
        """A run whose artifact is in the cache, registered; None where it has to be fetched."""
        folder = self._cache.find(digest)
        if folder is None:
            return None
        run = OpenedRun(run_id, run_name, digest, folder)
        if self._register.run(run_id) is None:
            self._register.add(run)
        return run

    def keep(
        self, run_id: str, run_name: str, digest: str, download: Callable[[Path], Path]
    ) -> OpenedRun:
        """A run's artifact in the cache, fetched where it is not there; it is registered.

        Raises:
            ArtifactError: what was fetched is not what the run recorded.
        """
        run = OpenedRun(run_id, run_name, digest, self._cache.fetch(digest, download))
        self._register.add(run)
        self._register.forget_missing()
        return run

    def add(self, run: OpenedRun) -> None:
        """Register a run whose artifact lies on this machine for good."""
        self._register.add(run)

    def remember(self, reference: str, run_id: str) -> None:
        """Note what an alias means now."""
        if self.remote and parse_reference(reference).alias is not None:
            self._register.remember(reference, run_id)

    @contextmanager
    def in_use(self, run: OpenedRun) -> Iterator[None]:
        """Keep a run's artifact from being removed from the cache as long as this lasts."""
        with self._cache.in_use(run.digest):
            yield

    def _whole(self, run: OpenedRun | None) -> OpenedRun | None:
        """A run unless its cached copy is damaged; what lies elsewhere is verified when it is loaded."""
        if run is None or not self._cache.holds(run.folder):
            return run
        return None if self._cache.find(run.digest) is None else run


def _origin(uri: str, experiment: str) -> str:
    """A name for one experiment of one tracking store, without its password."""
    public = re.sub(r"//[^/@\s]+@", "//", uri).partition("?")[0]
    return hashlib.sha256(f"{public}\n{experiment}".encode()).hexdigest()[:12]
