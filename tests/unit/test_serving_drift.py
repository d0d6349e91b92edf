"""A served model's windows: what was asked is compared with the training, at the price of a look."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.served_versions import CLASSES, Scorer, row, wine

from lodestar.artifact.register import OpenedRun
from lodestar.core.drift.sketches import Reference
from lodestar.core.drift.verdict import Limits
from lodestar.serving.drifting import MOST_KEPT, DriftWindows
from lodestar.serving.metadata import described_version
from lodestar.serving.request_model import RequestModel
from lodestar.serving.telemetry import Telemetry
from lodestar.serving.version import Parts, ServedVersion


class Clock:
    """Seconds that a test turns on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def windows(clock: Callable[[], float], *, seconds: float = 60.0) -> DriftWindows:
    contents, draw = wine(), np.random.default_rng(9)
    names = contents.roles.inputs
    features = pa.table({name: draw.normal(10, 1, 2_000) for name in names})
    shares = draw.random(500)
    said = {
        "prediction": pa.array([CLASSES[0] if share < 0.5 else CLASSES[2] for share in shares]),
        f"probability_{CLASSES[2]}": pa.array(shares),
    }
    reference = Reference.of(features, said, labels=True, importances={names[0]: 1.0})
    return DriftWindows(reference, Limits(), contents, seconds=seconds, clock=clock)


def served(drift: DriftWindows | None, telemetry: Telemetry) -> ServedVersion:
    """A version whose answers are as random as those that the windows know."""
    draw = np.random.default_rng(10)
    scorer = Scorer(lambda _: float(draw.random()))
    request = RequestModel.of(wine(), (), joined=False)
    parts = Parts(request, scorer, None, None, degrade=False, drift=drift)
    run = OpenedRun("a" * 32, "a run", "a" * 64, Path("/nowhere"))
    return ServedVersion(run, wine(), parts, telemetry)


def judged(drift: DriftWindows) -> bool:
    return drift.last is not None


def ask(version: ServedVersion, count: int, *, first: float = 10.0) -> None:
    """Rows like those of training, but for the first feature, which lies around `first`."""
    draw, rows = np.random.default_rng(11), []
    for at in range(count):
        name, *_ = row(at)
        rows.append((name, draw.normal(first), *draw.normal(10, 1, 12).tolist()))
    asyncio.run(version.answer(rows))


def test_a_window_like_the_training_is_steady_and_another_one_is_not() -> None:
    clock, telemetry = Clock(), Telemetry()
    drift = windows(clock)
    version = served(drift, telemetry)
    telemetry.model("champion", version.run.run_id, version.run.digest)
    ask(version, 300)
    drift.settle(telemetry, version.run.run_id)
    assert not judged(drift)
    clock.now += 61
    drift.settle(telemetry, version.run.run_id)
    assert drift.last is not None
    assert drift.last.report.verdict == "steady"
    assert drift.last.report.rows == 300

    ask(version, 300, first=13.0)
    clock.now += 61
    drift.settle(telemetry, version.run.run_id)
    column = wine().roles.inputs[0]
    told = described_version(version, "champion")["drift"]["last_window"]
    assert (told["verdict"], told["rows"]) == ("drift", 300)
    assert [each["column"] for each in told["drifted"]] == [column]
    assert "shape" in told["drifted"][0]["changes"]
    text = telemetry.render()[0].decode()
    run = f'run_id="{version.run.run_id}"'
    assert f"lodestar_drifted_columns{{{run}}} 1.0" in text
    assert f"lodestar_drift_window_rows{{{run}}} 300.0" in text
    assert f'lodestar_drift_psi{{column="{column}",{run}}}' in text


def test_only_so_many_rows_are_kept_between_two_looks() -> None:
    clock, telemetry = Clock(), Telemetry()
    drift = windows(clock)
    version = served(drift, telemetry)
    ask(version, 2 * MOST_KEPT)
    drift.settle(telemetry, version.run.run_id)
    ask(version, 10)
    clock.now += 61
    drift.settle(telemetry, version.run.run_id)
    assert drift.last is not None
    assert drift.last.report.rows == MOST_KEPT + 10


def test_a_window_without_rows_is_not_over_until_there_are_some() -> None:
    clock, telemetry = Clock(), Telemetry()
    drift = windows(clock)
    clock.now += 1_000
    drift.settle(telemetry, "a run")
    assert not judged(drift)
    version = served(drift, telemetry)
    ask(version, 5)
    drift.settle(telemetry, version.run.run_id)
    assert drift.last is not None
    assert drift.last.report.verdict == "too few rows"


@pytest.mark.parametrize("watched", [True, False])
def test_metadata_says_whether_anybody_watches(watched: bool) -> None:
    drift = windows(Clock()) if watched else None
    told = described_version(served(drift, Telemetry()), "champion")["drift"]
    assert told == {"watched": watched, "last_window": None}
