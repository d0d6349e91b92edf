"""From a run's folder to a version that can answer: verified, compiled, connected, warm."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import feather

from lodestar.artifact.contents import ArtifactContents
from lodestar.artifact.register import OpenedRun
from lodestar.artifact.wrapper import PAYLOAD, load_wrapper
from lodestar.core.features import select_features
from lodestar.core.policies import RowPolicies
from lodestar.errors import ArtifactError
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.features import OnlineReader, SelectedFeatures
from lodestar.serving.breaker import Breaker
from lodestar.serving.plan import row_scorer
from lodestar.serving.request_model import RequestModel
from lodestar.serving.telemetry import Telemetry
from lodestar.serving.version import Parts, ServedVersion
from lodestar.settings.recipe import FeatureSelection
from lodestar.settings.serving import Serving

__all__ = ["VersionLoader", "contract_differences"]


@dataclass(frozen=True)
class VersionLoader:
    """Loads runs for one environment."""

    factory: EnvironmentFactory
    settings: Serving
    telemetry: Telemetry

    def load(self, run: OpenedRun) -> tuple[ServedVersion, tuple[str, ...]]:
        """Verify, replay the probe, compile; also return what to know about it, in words.

        Raises:
            ArtifactError: tampered with, incompatible, or its probe predicts something else.
        """
        wrapper, notes = load_wrapper(run.folder, digest=run.digest)
        contents = wrapper.contents
        selected = self._selected(contents)
        reader = self._reader(selected)
        keys = () if reader is None else reader.keys
        scorer = row_scorer(wrapper, _probe(run.folder), native=self.settings.native)
        parts = Parts(
            request=RequestModel.of(contents, keys, joined=reader is not None),
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
        )
        if scorer.reason:
            notes = (*notes, f"rows are scored by the {scorer.name} way: {scorer.reason}")
        return ServedVersion(run, contents, parts, self.telemetry), notes

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


def contract_differences(one: RequestModel, other: RequestModel) -> tuple[str, ...]:
    """What clients of the one would notice of the other, in words."""
    was, now = ({field.name: field for field in model.fields} for model in (one, other))
    gone = [f"the field {name} is gone" for name in was if name not in now]
    new = [f"the field {name} is new" for name in now if name not in was]
    changed = [
        f"the field {name} is {now[name].column.type}, was {was[name].column.type}"
        for name in was
        if name in now and now[name].column.type != was[name].column.type
    ]
    return (*gone, *new, *changed)


def _probe(folder: Path) -> pa.Table:
    path = folder / PAYLOAD / "probe_rows.arrow"
    try:
        return feather.read_table(path, memory_map=False)
    except OSError as error:
        raise ArtifactError("the artifact has no probe rows") from error
