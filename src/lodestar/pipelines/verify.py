"""Check a run's artifact without using it."""

from dataclasses import dataclass

from lodestar.artifact.probe import PROBE_ROWS
from lodestar.artifact.wrapper import load_wrapper
from lodestar.factory.environment import EnvironmentFactory
from lodestar.settings.loading import Environment

__all__ = ["VerifiedRun", "verify"]


@dataclass(frozen=True)
class VerifiedRun:
    """An artifact that is what it says: complete, untouched, and predicting what it did."""

    run_id: str
    run_name: str
    digest: str
    files: int
    probe_rows: int
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()


def verify(environment: Environment, reference: str) -> VerifiedRun:
    """Check manifest, lock and probe.

    Raises:
        ArtifactError: naming the first thing that is not as it was.
    """
    with EnvironmentFactory(environment).store().opened(reference) as opened:
        _, warnings = load_wrapper(opened.folder, digest=opened.digest)
        files = sum(1 for path in opened.folder.rglob("*") if path.is_file())
    return VerifiedRun(
        run_id=opened.run_id,
        run_name=opened.run_name,
        digest=opened.digest,
        files=files,
        probe_rows=PROBE_ROWS,
        warnings=warnings,
        notes=opened.notes,
    )
