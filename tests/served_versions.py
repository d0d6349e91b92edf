"""Versions that really answer, from the kept artifact's contents; only what scores is a stand-in."""

import tarfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lodestar.artifact.contents import ArtifactContents, read_contents
from lodestar.artifact.register import OpenedRun
from lodestar.core.results import Predictions
from lodestar.serving.fleet import Lane
from lodestar.serving.request_model import RequestModel
from lodestar.serving.scoring import Row, RowRefusal, RowScores
from lodestar.serving.telemetry import Telemetry
from lodestar.serving.version import Parts, ServedVersion

__all__ = ["CLASSES", "Scorer", "lane", "row", "version", "wine"]

KEPT = Path(__file__).parent / "fixtures" / "artifact-v1.tar.gz"
CLASSES = ("cultivar_1", "cultivar_2", "cultivar_3")


@cache
def wine() -> ArtifactContents:
    """What the kept artifact knows of itself: three classes, `sample_id` is the key."""
    with TemporaryDirectory() as folder, tarfile.open(KEPT) as archive:
        archive.extractall(folder, filter="data")
        return read_contents(next(Path(folder).rglob("contents.json")))


class Scorer:
    """Says of every row what it was made with: the third class's probability."""

    name = "numpy"
    reason = ""

    def __init__(
        self, share: float | Callable[[Row], float], *, seconds: float = 0.0, refuses: bool = False
    ) -> None:
        self._share = share if callable(share) else lambda _: float(share)
        self._seconds = seconds
        self._refuses = refuses
        self.scored: list[Row] = []

    def refusal(self, row: Row) -> RowRefusal | None:
        """All rows, or none."""
        del row
        return RowRefusal("ash", "is refused by this model") if self._refuses else None

    def score(self, rows: Sequence[Row]) -> RowScores:
        """After some time, if it takes any."""
        time.sleep(self._seconds)
        self.scored += rows
        third = np.array([self._share(row) for row in rows])
        shares = np.stack([1 - third, np.zeros(len(rows)), third], axis=1)
        return RowScores(Predictions(shares.argmax(axis=1), shares, CLASSES))


def version(name: str, scorer: Scorer, telemetry: Telemetry | None = None) -> ServedVersion:
    """A version that answers with a scorer."""
    run = OpenedRun(name * 32, name, name * 64, Path("/nowhere"))
    parts = Parts(RequestModel.of(wine(), (), joined=False), scorer, None, None, degrade=False)
    return ServedVersion(run, wine(), parts, telemetry or Telemetry())


def lane(name: str, scorer: Scorer) -> Lane:
    """A lane in front of it."""
    return Lane.of(version(name, scorer), most=64)


def row(at: int = 0) -> Row:
    """A row of the entity with that number."""
    return (f"wine-{at}", *[float(at)] * 13)
