"""Which features a recipe takes, and what happens where one is missing or too old."""

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from lodestar.settings.features import Duration, in_units
from lodestar.settings.section import Name, Section, as_tuple

__all__ = ["FeatureChoice", "FeatureSelection"]

DEFAULT = "as_trained"


def _on_missing(value: object) -> object:
    """YAML's own null is the word."""
    if value is None:
        return "null"
    if not isinstance(value, bool | int | float | str):
        raise ValueError(  # noqa: TRY004 -- pydantic takes no other
            "must be as_trained, error, null, or a value of the feature's type"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


def _short_form(value: object) -> object:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping | FeatureChoice):
        raise ValueError(  # noqa: TRY004 -- pydantic takes no other
            "must be a feature's name, or a mapping of name, on_missing and max_age"
        )
    return value


class FeatureChoice(Section):
    """One feature; `age` alone is short for `{name: age}`.

    Where it is missing, `on_missing` says what stands in: `as_trained` (null where training saw nulls,
    else an error), `error`, `null`, or a value of its own type. A value older than `max_age` is missing.
    """

    name: Name
    on_missing: Annotated[
        Any, BeforeValidator(_on_missing, json_schema_input_type=bool | int | float | str | None)
    ] = DEFAULT
    max_age: Duration | None = None

    def policy(self) -> dict[str, Any]:
        """Plain values of what is said beyond the name."""
        found: dict[str, Any] = {}
        if self.on_missing != DEFAULT:
            found["on_missing"] = self.on_missing
        if self.max_age is not None:
            found["max_age"] = in_units(self.max_age)
        return found


Choice = Annotated[
    FeatureChoice, BeforeValidator(_short_form, json_schema_input_type=str | FeatureChoice)
]


class FeatureSelection(Section):
    """Features of one namespace to join to the spine."""

    feature_namespace: Name
    features: Annotated[tuple[Choice, ...], BeforeValidator(as_tuple), Field(min_length=1)]

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, in order."""
        return tuple(choice.name for choice in self.features)

    @property
    def ages(self) -> dict[str, timedelta]:
        """How old a value may be, where the recipe says it."""
        return {one.name: one.max_age for one in self.features if one.max_age is not None}

    def plain(self) -> dict[str, Any]:
        """Plain values for the artifact, which `model_validate` reads back; `features` are names."""
        policies = {one.name: policy for one in self.features if (policy := one.policy())}
        return {
            "feature_namespace": self.feature_namespace,
            "features": list(self.names),
            **({"policies": policies} if policies else {}),
        }

    @model_validator(mode="before")
    @classmethod
    def _as_kept(cls, value: Any) -> Any:  # noqa: ANN401 -- whatever YAML or an artifact holds
        """Put policies that stand apart, as an artifact keeps them, to their features."""
        if not isinstance(value, Mapping) or "policies" not in value:
            return value
        rest = {key: item for key, item in value.items() if key != "policies"}
        policies, names = value["policies"], rest.get("features")
        if not isinstance(policies, Mapping) or not isinstance(names, list | tuple):
            raise ValueError("policies go with a list of names, name by name")  # noqa: TRY004 -- pydantic takes no other
        for name, policy in policies.items():
            if name not in names or not isinstance(policy, Mapping):
                raise ValueError(f"policies names {name!r}: a name in features, and a mapping")
        rest["features"] = [
            {"name": name, **policies[name]} if name in policies else name for name in names
        ]
        return rest
