"""Feature declarations: `features/*.yaml`, one namespace per file, the same for every environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, BeforeValidator, ValidationError, model_validator

from lodestar.errors import Problem, SettingsError, UsageError, choices
from lodestar.settings.section import Section
from lodestar.settings.validation import problems_of
from lodestar.settings.yaml_source import read_yaml

__all__ = [
    "Duration",
    "Feature",
    "FeatureCatalog",
    "FeatureSource",
    "FeatureView",
    "ValueType",
    "in_units",
    "load_features",
]

Entries = TypeVar("Entries", bound=dict[str, Any])
ValueType = Literal["bool", "int", "float", "string", "timestamp"]
KeyType = Literal["int", "string"]
_DURATION = re.compile(r"([1-9][0-9]{0,19})(us|ms|s|m|h|d)")
_UNITS = {
    "us": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")


def _duration(value: object) -> object:
    if value is None or isinstance(value, timedelta):
        return value
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("a duration is a whole number and a unit: 30s, 15m, 6h, 90d (or ms, us)")
    try:
        return int(found.group(1)) * _UNITS[found.group(2)]
    except OverflowError as error:
        raise ValueError("longer than any time can be; leave it out for no limit") from error


def _word(value: str) -> str:
    if _WORD.fullmatch(value) is None:
        raise ValueError("a name is letters, digits and _, and does not start with a digit")
    return value


def _table(value: str) -> str:
    if _TABLE.fullmatch(value) is None:
        raise ValueError("a table is a name, or a schema and a name: users, shop.users")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        near = get_close_matches(value, available_timezones(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{value!r} is no time zone such as UTC or Europe/Berlin{hint}") from error
    return value


def _at_least_one(value: Entries) -> Entries:
    if not value:
        raise ValueError("must not be empty")
    return value


def in_units(duration: timedelta) -> str:
    """A duration as a declaration says it: `90d`."""
    unit = next(name for name in reversed(_UNITS) if not duration % _UNITS[name])
    return f"{duration // _UNITS[unit]}{unit}"


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Word = Annotated[str, AfterValidator(_word)]
Table = Annotated[str, AfterValidator(_table)]
Zone = Annotated[str, AfterValidator(_zone)]


class Feature(Section):
    """One value per entity and time; `string` alone is short for `{type: string}`.

    `sensitive` values are hashed in snapshots.
    """

    type: ValueType
    description: str = ""
    sensitive: bool = False

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:  # noqa: ANN401 -- whatever YAML holds
        return {"type": value} if isinstance(value, str) else value


class FeatureSource(Section):
    """The logical table of a view, found by each environment in its own store.

    `created_col` says when a version arrived: those that arrived after the row's event do not count.
    `timezone` is the zone of timestamps without one; without it they are refused.
    """

    table: Table
    timestamp_col: Word = "event_timestamp"
    created_col: Word | None = None
    timezone: Zone | None = None

    @property
    def times(self) -> tuple[str, ...]:
        """The columns that say when: the timestamp, and the created column if there is one."""
        return (self.timestamp_col, *([self.created_col] if self.created_col else []))

    @model_validator(mode="after")
    def _times_differ(self) -> "FeatureSource":
        if self.created_col == self.timestamp_col:
            raise ValueError(
                "timestamp_col and created_col are one column; leave created_col out where it is not "
                "known when a version arrived"
            )
        return self


class FeatureView(Section):
    """One namespace: whose features, which, from where, and for how long they hold (`ttl`)."""

    namespace: Word
    entity_keys: Annotated[dict[Word, KeyType], AfterValidator(_at_least_one)]
    source: FeatureSource
    ttl: Duration | None = None
    features: Annotated[dict[Word, Feature], AfterValidator(_at_least_one)]
    description: str = ""
    owner: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The entity's columns, in the order declared."""
        return tuple(self.entity_keys)

    def plain(self) -> dict[str, Any]:
        """Plain values that `model_validate` reads back."""
        ttl = None if self.ttl is None else in_units(self.ttl)
        return {**self.model_dump(mode="json", exclude={"ttl"}), "ttl": ttl}

    @model_validator(mode="after")
    def _names_do_not_meet(self) -> "FeatureView":
        columns = [*self.entity_keys, *self.source.times, *self.features]
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)}: a column is a key, a timestamp or a feature")
        return self


@dataclass(frozen=True)
class FeatureCatalog:
    """All namespaces of a project."""

    views: Mapping[str, FeatureView]

    @property
    def sensitive(self) -> frozenset[str]:
        """The features that any namespace marks so."""
        return frozenset(
            name
            for view in self.views.values()
            for name, feature in view.features.items()
            if feature.sensitive
        )

    def view(self, namespace: str) -> FeatureView:
        """One namespace's declaration.

        Raises:
            UsageError: it is not declared.
        """
        found = self.views.get(namespace)
        if found is None:
            raise UsageError(
                f"no feature namespace {namespace!r} is declared in features/",
                hint=choices(namespace, sorted(self.views)) if self.views else "write its file",
            )
        return found


def load_features(project: Path) -> FeatureCatalog:
    """Read every `features/*.yaml` of a project; no files are no namespaces.

    Raises:
        SettingsError: all problems of all files at once.
    """
    views: dict[str, FeatureView] = {}
    problems: list[Problem] = []
    for path in sorted((project / "features").glob("*.yaml")):
        source = read_yaml(path, path.relative_to(project).as_posix())
        problems += source.problems
        if not source.value:
            continue
        try:
            view = FeatureView.model_validate(source.value)
        except ValidationError as error:
            told = {problem.where for problem in source.problems}
            found = problems_of(error, FeatureView, source)
            problems += [problem for problem in found if problem.where not in told]
            continue
        if view.namespace in views:
            problems.append(
                Problem(
                    f"the namespace {view.namespace!r} is declared twice",
                    source.where(("namespace",)),
                )
            )
        views[view.namespace] = view
    if problems:
        raise SettingsError(problems)
    return FeatureCatalog(views)
