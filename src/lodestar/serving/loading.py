"""From a run's folder to a version that can answer: verified, compiled, connected, warm."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lodestar.artifact.contents import ArtifactContents
from lodestar.artifact.register import OpenedRun
from lodestar.artifact.sketches import read_sketches
from lodestar.artifact.wrapper import open_contents
from lodestar.core.drift.limits import limits_of
from lodestar.core.features import select_features
from lodestar.core.policies import RowPolicies
from lodestar.errors import ArtifactError
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.features import OnlineReader, SelectedFeatures
from lodestar.serving import proving
from lodestar.serving.breaker import Breaker
from lodestar.serving.drifting import DriftWindows
from lodestar.serving.plan import NotPlannedError, rows_of
from lodestar.serving.request_model import RequestField, RequestModel
from lodestar.serving.scoring import RowScorer
from lodestar.serving.state import ServedRun
from lodestar.serving.telemetry import Telemetry
from lodestar.serving.version import Parts, ServedVersion
from lodestar.settings.monitoring import Drift
from lodestar.settings.recipe import FeatureSelection
from lodestar.settings.serving import Serving

__all__ = ["VersionLoader", "contract_differences", "request_differences"]

WARM_UPS = 3


@dataclass(frozen=True)
class VersionLoader:
    """Loads runs for one environment."""

    factory: EnvironmentFactory
    settings: Serving
    telemetry: Telemetry
    project: Path
    clock: Callable[[], int] = time.time_ns
    drift: Drift | None = None
    traced: bool = False

    def load(
        self, served: ServedRun, *, like: RequestModel | None = None, prove: bool = True
    ) -> tuple[ServedVersion, tuple[str, ...]]:
        """Verify, replay the probe, compile, warm up; also return what to know about it, in words.

        Where another process has proven how its rows are scored, that is not proven again. Rows come in
        the order of `like`, if that has the same fields.

        Raises:
            ArtifactError: tampered with, incompatible, or its probe predicts something else.
            NotPlannedError: nobody has proven it, and this one is not to `prove` it.
        """
        run = served.opened()
        contents, notes = open_contents(run.folder, digest=run.digest)
        scorer = self._scorer(contents, served, prove=prove)
        selected = self._selected(contents)
        reader = self._reader(selected)
        keys = () if reader is None else reader.keys
        request = RequestModel.of(contents, keys, joined=reader is not None)
        parts = Parts(
            request=request if like is None else request.ordered_as(like),
            scorer=scorer,
            reader=reader,
            policies=RowPolicies(
                contents.augmenter_config_snapshot.get("features", ()),
                [one.view for one in selected],
                contents.feature_schema,
            )
            if reader
            else None,
            degrade=self.settings.online.on_failure == "degrade",
            drift=self._windows(run, contents),
            traced=self.traced,
        )
        if scorer.reason:
            notes = (*notes, f"rows are scored by the {scorer.name} way: {scorer.reason}")
        if parts.drift is None and self.drift is not None and self.drift.enabled:
            notes = (*notes, "drift is not watched: the artifact has no sketches that can be read")
        return ServedVersion(run, contents, parts, self.telemetry, clock=self.clock), notes

    def _windows(self, run: OpenedRun, contents: ArtifactContents) -> DriftWindows | None:
        """None where drift is off, or the artifact has no sketches, or such of a newer version."""
        if self.drift is None or not self.drift.enabled:
            return None
        try:
            reference = read_sketches(run.folder)
        except ArtifactError:
            return None
        seconds = self.drift.window_seconds
        return DriftWindows(reference, limits_of(self.drift), contents, seconds=seconds)

    def _scorer(self, contents: ArtifactContents, run: ServedRun, *, prove: bool) -> RowScorer:
        native = self.settings.native
        scorer = proving.kept(self.project, contents, run) if native else None
        if scorer is None and run.scoring:
            scorer = proving.repeat(run)
        if scorer is None:
            if not prove:
                raise NotPlannedError("nobody has proven how its rows are scored")
            scorer = proving.prove(self.project, run, native=native)
        rows = rows_of(contents.feature_schema, proving.probe_rows(Path(run.folder)))
        for _ in range(WARM_UPS):
            scorer.score(rows)
            scorer.score(rows[:1])
        return scorer

    def _selected(self, contents: ArtifactContents) -> tuple[SelectedFeatures, ...]:
        items = contents.augmenter_config_snapshot.get("features", ())
        if not items:
            return ()
        selection = [FeatureSelection.model_validate(dict(item)) for item in items]
        return select_features(self.factory.catalog_of(contents), selection)

    def _reader(self, selected: Sequence[SelectedFeatures]) -> OnlineReader | None:
        """What reads the features; None where there are none, or clients send them along."""
        if not selected:
            return None
        reader = self.factory.online_reader(selected)
        if reader is None:
            return None
        return Breaker(reader, self.settings.online, self.telemetry)


def contract_differences(was: ServedVersion, now: ServedVersion) -> tuple[str, ...]:
    """What clients of the one would notice of the other, in words: requests, task and classes."""
    targets = was.contents.target, now.contents.target
    kinds = [
        f"its {name} is {after}, was {before}"
        for name, before, after in (
            ("task", targets[0].task, targets[1].task),
            ("list of classes", *([*target.classes] for target in targets)),
            ("treatment", *(target.treatment_value for target in targets)),
        )
        if before != after
    ]
    return (*request_differences(was.request, now.request), *kinds)


def request_differences(one: RequestModel, other: RequestModel) -> tuple[str, ...]:
    """What is asked for otherwise; what is only allowed in addition is no difference."""
    was, now = ({field.name: field for field in model.fields} for model in (one, other))
    gone = [f"the field {name} is gone" for name in was if name not in now]
    new = [f"the field {name} is new" for name in now if name not in was]
    changed = [
        f"the field {name} {words}"
        for name in was
        if name in now
        for words in _field_differences(was[name], now[name])
    ]
    return (*gone, *new, *changed)


def _field_differences(was: RequestField, now: RequestField) -> Iterator[str]:
    if now.column.type != was.column.type:
        yield f"is {now.column.type}, was {was.column.type}"
    if now.required and not was.required:
        yield "has to be there now"
    if was.nullable and not now.nullable:
        yield "must not be null any more"
    if now.key != was.key:
        yield f"is {'an' if now.key else 'no'} entity key now"
