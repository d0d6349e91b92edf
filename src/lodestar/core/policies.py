"""What happens where a feature is missing, or too old: one rule per feature, for batches and requests.

A feature is missing where the store knows no value: of an unknown entity, one older than its view's ttl
or its own `max_age` (then it is stale), and where the value is null; NaN is null, as in a schema. The
rules: `error`; `null`; `as_trained`, the default; or a value that stands in. As a model takes nulls only
where its training saw some, `null` and `as_trained` are errors elsewhere; in training itself nothing is
known yet, and both leave nulls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from lodestar.schema import FrameSchema

# The artifact carries this file, and no settings.
if TYPE_CHECKING:
    from lodestar.settings.features import FeatureView

__all__ = [
    "RULES",
    "Policy",
    "RowPolicies",
    "SettledRow",
    "plain_value",
    "policies_of",
    "without_nulls",
]

RULES = ("as_trained", "error", "null")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MOST = 2**63
FOREVER = 2**63  # µs: longer than any age
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Policy:
    """One feature's rule: one of `RULES`, or `value` with the value, as the recipe has it."""

    feature: str
    namespace: str
    rule: str
    value: Any = None

    def refuses(self, trained: FrameSchema | None) -> bool:
        """Whether a missing value is an error. A column that the model does not take may be null."""
        if self.rule in {"error", "value"} or trained is None:
            return self.rule == "error"
        return any(one.name == self.feature and not one.nullable for one in trained.columns)


def policies_of(selection: Sequence[Mapping[str, Any]]) -> tuple[Policy, ...]:
    """Each selected feature's rule, in order; `selection` is as the artifact keeps it."""
    return tuple(_policies(selection))


def _policies(selection: Sequence[Mapping[str, Any]]) -> Iterator[Policy]:
    for item in selection:
        said = item.get("policies", {})
        for name in item["features"]:
            given = said.get(name, {}).get("on_missing", "as_trained")
            rule, value = (given, None) if given in RULES else ("value", given)
            yield Policy(name, item["feature_namespace"], rule, value)


def without_nulls(selection: Sequence[Mapping[str, Any]], trained: FrameSchema) -> tuple[str, ...]:
    """Features that the recipe lets be null, and that never were in training: no model takes that."""
    return tuple(
        policy.feature
        for policy in policies_of(selection)
        if policy.rule == "null" and policy.refuses(trained)
    )


def plain_value(value: Any, kind: str) -> bool | int | float | str:  # noqa: ANN401 -- whatever the recipe says
    """A stand-in as a plain value of the feature's type; µs since 1970 (UTC) for a timestamp.

    Raises:
        ValueError: it is of another type.
    """
    if kind == "timestamp":
        return _micros(value)
    types = {"bool": bool, "int": int, "float": int | float, "string": str}
    if not isinstance(value, types[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError("it is of another type")
    if isinstance(value, int) and not -MOST <= value < MOST:
        raise ValueError("it needs more than 64 bits")
    plain: bool | int | float | str = float(value) if kind == "float" else value
    return plain


def _micros(value: object) -> int:
    if not isinstance(value, str):
        raise ValueError("it is no time")  # noqa: TRY004 -- callers ask for one kind
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("its zone is missing")
    return (moment - EPOCH) // MICROSECOND


@dataclass(frozen=True, slots=True)
class SettledRow:
    """A row's features in the order of the selection, after the policies.

    `missing` are those that had no value: what stands in their place is the policy's doing. A null that
    the store itself holds, and that stays null, is none of them. `stale` are those of them that were
    older than their `max_age`; `refused` those whose policy is an error, and the row must not be scored.
    """

    values: Row
    missing: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class RowPolicies:
    """Settles rows as an `OnlineReader` answers them, a few µs each.

    `selection` is as the artifact keeps it, `views` are its namespaces' in the same order, `trained` is
    the schema of the model's inputs (None: not known yet). `nothing` is a row of which nothing is known.
    """

    def __init__(
        self,
        selection: Sequence[Mapping[str, Any]],
        views: Sequence[FeatureView],
        trained: FrameSchema | None,
    ) -> None:
        from lodestar.settings.selection import FeatureSelection

        policies = iter(policies_of(selection))
        self._namespaces: list[_Namespace] = []
        width = 0
        for item, view in zip(selection, views, strict=True):
            ages = FeatureSelection.model_validate(dict(item)).ages
            features = tuple(
                _Feature.of(next(policies), at, view.features[name].type, ages.get(name), trained)
                for at, name in enumerate(item["features"], start=width + 1)
            )
            self._namespaces.append(_Namespace(width, _age(view.ttl), features))
            width += 1 + len(features)
        self.nothing: Row = (None,) * width
        # All that must hold for a row to be taken as it is: nothing null, too old or NaN.
        every = [feature for one in self._namespaces for feature in one.features]
        self._limits = [(one.at, one.limit) for one in self._namespaces if one.limit < FOREVER]
        self._numbers = [feature.at for feature in every if feature.watched]
        self._pick = itemgetter(*[feature.at for feature in every]) if len(every) > 1 else None

    def settle(self, row: Row, now_us: int) -> SettledRow:
        """Apply the policies at a time (µs since 1970 in UTC)."""
        if self._pick is None or None in row:
            return self._settled(row, now_us)
        for at, limit in self._limits:
            if row[at] < now_us - limit:
                return self._settled(row, now_us)
        for at in self._numbers:
            if row[at] != row[at]:  # NaN
                return self._settled(row, now_us)
        return SettledRow(self._pick(row))

    def _settled(self, row: Row, now_us: int) -> SettledRow:
        values: list[Any] = []
        missing: list[_Feature] = []
        stale: list[str] = []
        for namespace in self._namespaces:
            event = row[namespace.at]
            age = namespace.ttl + 1 if event is None else now_us - event
            known = event is not None and age <= namespace.ttl
            for feature in namespace.features:
                late = known and age > feature.max_age
                value = row[feature.at] if known and not late else None
                if feature.lacks(value, known=known and not late):
                    missing.append(feature)
                    value = feature.instead
                    if late:
                        stale.append(feature.name)
                values.append(value)
        names = tuple(feature.name for feature in missing)
        refused = tuple(feature.name for feature in missing if feature.refuses)
        return SettledRow(tuple(values), names, tuple(stale), refused)


@dataclass(frozen=True, slots=True)
class _Feature:
    """Where it stands in a row; ages are µs. `watched`: NaN has to be looked for."""

    name: str
    at: int
    max_age: int
    instead: Any
    refuses: bool
    keeps_null: bool
    watched: bool

    @classmethod
    def of(
        cls,
        policy: Policy,
        at: int,
        kind: str,
        max_age: timedelta | None,
        trained: FrameSchema | None,
    ) -> _Feature:
        refuses = policy.refuses(trained)
        keeps_null = not refuses and policy.rule != "value"
        return cls(
            name=policy.feature,
            at=at,
            max_age=_age(max_age),
            instead=plain_value(policy.value, kind) if policy.rule == "value" else None,
            refuses=refuses,
            keeps_null=keeps_null,
            watched=kind == "float" and not keeps_null,
        )

    def lacks(self, value: Any, *, known: bool) -> bool:  # noqa: ANN401 -- of any feature's type
        """Whether the policy has to do something about a value."""
        if value is None or value != value:  # noqa: PLR0124 -- NaN alone is no value's equal
            return not (known and self.keeps_null)
        return False


@dataclass(frozen=True, slots=True)
class _Namespace:
    """Where its event time stands, how long its values hold (µs), and its features."""

    at: int
    ttl: int
    features: tuple[_Feature, ...]

    @property
    def limit(self) -> int:
        """How old its values may be, and none of them is too old."""
        return min([self.ttl, *[feature.max_age for feature in self.features]])


def _age(limit: timedelta | None) -> int:
    return FOREVER if limit is None else limit // MICROSECOND
