"""Feature declarations as Feast's objects and back, and the difference of two in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

from feast import BigQuerySource, Entity, FeatureView, Field, FileSource, SnowflakeSource, ValueType
from feast.data_source import DataSource
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Bool, FeastType, Float32, Float64, Int32, Int64, String, UnixTimestamp
from pydantic import ValidationError

from lodestar.adapters.feast.config import WarehouseTables
from lodestar.errors import UsageError
from lodestar.settings import features as declared

__all__ = ["MANAGED", "FeastObjects", "declaration_of", "objects_of", "ours", "type_of"]

MANAGED = {"managed_by": "lodestar"}
# A timestamp is µs as an int: Feast's own timestamps are whole seconds.
TYPES: dict[str, FeastType] = {
    "bool": Bool,
    "int": Int64,
    "float": Float64,
    "string": String,
    "timestamp": Int64,
}
KINDS: dict[FeastType, str] = {
    Bool: "bool",
    Int64: "int",
    Int32: "int",
    Float64: "float",
    Float32: "float",
    String: "string",
    UnixTimestamp: "timestamp",
}
# Where the tables are: a folder, a warehouse, or (None) the PostgreSQL that Feast is told of.
Place: TypeAlias = Path | WarehouseTables | None
KEYS = {"int": ValueType.INT64, "string": ValueType.STRING}


@dataclass(frozen=True)
class FeastObjects:
    """What a catalog is in Feast."""

    entities: tuple[Entity, ...]
    views: tuple[FeatureView, ...]


def objects_of(catalog: declared.FeatureCatalog, place: Place) -> FeastObjects:
    """Build Feast's objects; tables are PostgreSQL's, a warehouse's, or parquet files below a folder.

    Raises:
        UsageError: two namespaces give one key column different types, which Feast cannot say.
    """
    entities: dict[str, Entity] = {}
    kinds: dict[str, tuple[str, str]] = {}
    for view in catalog.views.values():
        for name, kind in view.entity_keys.items():
            known, where = kinds.setdefault(name, (kind, view.namespace))
            if known != kind:
                raise UsageError(
                    f"the key {name!r} is {known} in {where} and {kind} in {view.namespace}: "
                    "an entity of Feast has one type",
                    hint="give one of them another name",
                )
            entities[name] = Entity(
                name=name, join_keys=[name], value_type=KEYS[kind], tags=MANAGED
            )
    views = tuple(_view(view, entities, place) for view in catalog.views.values())
    return FeastObjects(tuple(entities.values()), views)


def _view(view: declared.FeatureView, entities: Mapping[str, Entity], place: Place) -> FeatureView:
    keys = [Field(name=name, dtype=TYPES[kind]) for name, kind in view.entity_keys.items()]
    features = [
        Field(name=name, dtype=TYPES[one.type], description=one.description, tags=_tags(one))
        for name, one in view.features.items()
    ]
    return FeatureView(
        name=view.namespace,
        entities=[entities[name] for name in view.keys],
        ttl=view.ttl or timedelta(0),
        schema=[*keys, *features],
        source=_source(view, place),
        description=view.description,
        owner=view.owner,
        tags=MANAGED,
    )


def _tags(feature: declared.Feature) -> dict[str, str]:
    tags = {"unit": "µs since 1970"} if feature.type == "timestamp" else {}
    return {**tags, "sensitive": "true"} if feature.sensitive else tags


def _source(view: declared.FeatureView, place: Place) -> DataSource:
    source = view.source
    common: dict[str, Any] = {
        "name": view.namespace,
        "timestamp_field": source.timestamp_col,
        "created_timestamp_column": source.created_col or "",
        "owner": view.owner,
        "tags": MANAGED,
    }
    if place is None:
        return PostgreSQLSource(table=source.table, **common)
    if isinstance(place, Path):
        path = place / f"{source.table.replace('.', '/')}.parquet"
        return FileSource(path=str(path), **common)
    schema, _, table = source.table.rpartition(".")
    schema = schema or place.schema or ""
    if place.kind == "bigquery":
        return BigQuerySource(table=f"{place.database}.{schema}.{table}", **common)
    return SnowflakeSource(database=place.database, schema=schema, table=table, **common)


def ours(made: FeatureView | Entity) -> bool:
    """Whether something registered was written by us, and may be changed and removed by us."""
    return bool(made.tags.get("managed_by") == MANAGED["managed_by"])


def type_of(column: Field) -> str:
    """A column's type as a declaration says it; Feast's own name where it cannot."""
    kind = KINDS.get(column.dtype, str(column.dtype))
    return "timestamp" if column.tags.get("unit") == "µs since 1970" else kind


def declaration_of(view: FeatureView, table: str) -> declared.FeatureView:
    """Read another's view as a declaration whose rows are in `table`.

    Raises:
        UsageError: it has something that a declaration cannot say, which is named.
    """
    source: Any = view.batch_source
    value = {
        "namespace": view.name,
        "entity_keys": {key.name: _key_type(view, key) for key in view.entity_columns},
        "source": {
            "table": table,
            "timestamp_col": source.timestamp_field,
            **({"created_col": c} if (c := source.created_timestamp_column) else {}),
        },
        "ttl": view.ttl or None,
        "features": {feature.name: _feature_type(view, feature) for feature in view.features},
        "description": view.description,
        "owner": view.owner,
    }
    try:
        return declared.FeatureView.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        part = ".".join(str(step) for step in first["loc"])
        reason = f"{part}: {first['msg']}" if part else first["msg"]
        raise UsageError(f"the Feast view {view.name!r} does not fit: {reason}") from error


def _key_type(view: FeatureView, key: Field) -> str:
    if key.dtype not in {Int64, String}:
        raise UsageError(
            f"the Feast view {view.name!r} has a key {key.name!r} of type {key.dtype}",
            hint="keys can be Int64 or String",
        )
    return KINDS[key.dtype]


def _feature_type(view: FeatureView, feature: Field) -> str:
    if feature.dtype not in KINDS:
        raise UsageError(
            f"the Feast view {view.name!r} has a feature {feature.name!r} of type {feature.dtype}",
            hint="features can be Bool, Int64, Float64, String or UnixTimestamp",
        )
    return type_of(feature)
