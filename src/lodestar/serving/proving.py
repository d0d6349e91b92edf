"""How an artifact is scored is proven once on a machine, and kept for all that serve it there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import feather

from lodestar.artifact.contents import ArtifactContents
from lodestar.artifact.register import OpenedRun
from lodestar.artifact.wrapper import PAYLOAD, PyfuncWrapper, load_wrapper, open_contents
from lodestar.errors import ArtifactError, LodestarError
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.progress import Progress
from lodestar.serving.plan import (
    NotPlannedError,
    keep_plan,
    kept_scorer,
    proven_scorer,
    row_scorer,
)
from lodestar.serving.scoring import RowScorer
from lodestar.serving.state import ServedRun
from lodestar.settings.loading import Environment

__all__ = [
    "is_proven",
    "kept",
    "probe_rows",
    "prove",
    "prove_ahead",
    "prove_loaded",
    "repeat",
]

PROVING = "Proving how it is scored when it is served"
# The libraries whose trees are scored without them.
PLANNED = frozenset({"xgboost", "lightgbm", "causal"})


def plan_path(project: Path, digest: str) -> Path:
    """Where the proven plan of an artifact is kept on this machine."""
    return project / ".lodestar" / "plans" / f"{digest}.plan"


def is_proven(project: Path, run: OpenedRun) -> bool:
    """Whether a plan is kept already, or none will ever be: then nobody need make one first.

    Raises:
        ArtifactError: tampered with, or for other versions.
    """
    contents, _ = open_contents(run.folder, digest=run.digest)
    return not _is_due(project, contents, run.digest)


def _is_due(project: Path, contents: ArtifactContents, digest: str) -> bool:
    return contents.trained_model.kind in PLANNED and not plan_path(project, digest).is_file()


def prove_ahead(environment: Environment, run_id: str, tell: Progress) -> None:
    """Prove a run that this environment may serve, while its libraries are loaded.

    What stands in the way is told, and met again by whoever serves the run.
    """
    with _told(tell), EnvironmentFactory(environment).store().opened(run_id) as run:
        if not is_proven(environment.project, run):
            tell.stage(PROVING)
            prove(environment.project, ServedRun.of(run), native=True)


def prove_loaded(
    environment: Environment, run: OpenedRun, wrapper: PyfuncWrapper, tell: Progress
) -> None:
    """As `prove_ahead`, where the artifact has been verified and loaded already."""
    with _told(tell):
        if _is_due(environment.project, wrapper.contents, run.digest):
            tell.stage(PROVING)
            _keep(environment.project, wrapper, probe_rows(run.folder), run.digest)


@contextmanager
def _told(tell: Progress) -> Iterator[None]:
    try:
        yield
    except LodestarError as error:
        tell.note(f"how it is scored when it is served is not proven: {error.what}")


def kept(project: Path, contents: ArtifactContents, run: ServedRun) -> RowScorer | None:
    """A scorer that was proven before: no library of the model is needed for it."""
    try:
        return kept_scorer(contents, plan_path(project, run.digest), digest=run.digest)
    except NotPlannedError:
        return None


def prove(project: Path, run: ServedRun, *, native: bool) -> RowScorer:
    """Load the estimator, choose the fastest way that scores as it does, and keep it if it is native.

    Raises:
        ArtifactError: tampered with, incompatible, or its probe predicts something else.
    """
    folder = Path(run.folder)
    wrapper, _ = load_wrapper(folder, digest=run.digest)
    probe = probe_rows(folder)
    if not native:
        return row_scorer(wrapper, probe, native=False)
    return _keep(project, wrapper, probe, run.digest)


def _keep(project: Path, wrapper: PyfuncWrapper, probe: pa.Table, digest: str) -> RowScorer:
    path = plan_path(project, digest)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return keep_plan(wrapper, probe, path, digest=digest, native=True)
    except OSError:  # where nothing can be written, every start proves anew
        return row_scorer(wrapper, probe, native=True)


def repeat(run: ServedRun) -> RowScorer:
    """Load the estimator and score as another process has proven."""
    folder = Path(run.folder)
    wrapper, _ = load_wrapper(folder, digest=run.digest)
    return proven_scorer(wrapper, probe_rows(folder), name=run.scoring, reason=run.why_not_faster)


def probe_rows(folder: Path) -> pa.Table:
    """The training rows that an artifact carries.

    Raises:
        ArtifactError: it has none.
    """
    path = folder / PAYLOAD / "probe_rows.arrow"
    try:
        return feather.read_table(path, memory_map=False)
    except OSError as error:
        raise ArtifactError("the artifact has no probe rows") from error
