"""What callers and the feature store must keep to for an artifact to be exchanged for another."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lodestar.artifact.contents import ArtifactContents
from lodestar.core.augmenter import Augmenter

__all__ = ["Contract", "contract_of"]


@dataclass(frozen=True)
class Contract:
    """What a caller sends and gets, and which features are read for it. Columns go to their types."""

    task: str
    labels: tuple[str, ...]
    request: Mapping[str, str]
    features: Mapping[str, str]

    def differences(self, other: "Contract") -> tuple[str, ...]:
        """What is another with `other`, a line each; nothing where callers would notice nothing."""
        lines = []
        if self.task != other.task:
            lines.append(f"task: {self.task}, and {other.task} now")
        if self.labels != other.labels:
            lines.append(f"classes: {_listed(self.labels)}, and {_listed(other.labels)} now")
        lines += _compared("request column", self.request, other.request)
        lines += _compared("feature", self.features, other.features)
        return tuple(lines)


def contract_of(contents: ArtifactContents) -> Contract:
    """The contract of an artifact: the order of columns is no part of it."""
    roles = contents.roles
    selected = Augmenter(contents.augmenter_config_snapshot.get("features", ())).features
    types = {column.name: column.type for column in contents.spine_schema.columns}
    unseen = {roles.target, roles.treatment, roles.timestamp, *selected}
    return Contract(
        task=contents.target.task,
        labels=tuple(str(label) for label in contents.target.classes),
        request={name: kind for name, kind in types.items() if name not in unseen},
        features={name: types.get(name, "unknown") for name in selected},
    )


def _compared(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    lines = [f"- {what} {name} ({before[name]})" for name in before if name not in now]
    lines += [f"+ {what} {name} ({now[name]})" for name in now if name not in before]
    lines += [
        f"~ {what} {name}: {before[name]}, and {now[name]} now"
        for name in before
        if name in now and now[name] != before[name]
    ]
    return lines


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(labels) or "none"
