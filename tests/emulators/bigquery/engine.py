"""What runs behind the emulated BigQuery's API: DuckDB, to which sqlglot translates."""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify

__all__ = ["Engine", "Plan", "Refusal", "exported"]

_OURS = {
    "BOOLEAN": "BOOLEAN",
    "BIGINT": "INTEGER",
    "INTEGER": "INTEGER",
    "HUGEINT": "INTEGER",
    "DOUBLE": "FLOAT",
    "FLOAT": "FLOAT",
    "VARCHAR": "STRING",
    "DATE": "DATE",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP",
    "TIMESTAMP": "DATETIME",
    "BLOB": "BYTES",
}
_DUCKS = {
    "BOOLEAN": "BOOLEAN",
    "BOOL": "BOOLEAN",
    "INTEGER": "BIGINT",
    "INT64": "BIGINT",
    "FLOAT": "DOUBLE",
    "FLOAT64": "DOUBLE",
    "STRING": "VARCHAR",
    "DATE": "DATE",
    "TIMESTAMP": "TIMESTAMPTZ",
    "DATETIME": "TIMESTAMP",
    "NUMERIC": "DECIMAL(38,9)",
    "BYTES": "BLOB",
}
_PARAMETERS = {
    exp.DType.TIMESTAMPTZ: "TIMESTAMP",
    exp.DType.TIMESTAMP: "DATETIME",
    exp.DType.DATETIME: "DATETIME",
    exp.DType.DATE: "DATE",
    exp.DType.VARCHAR: "STRING",
    exp.DType.TEXT: "STRING",
    exp.DType.DOUBLE: "FLOAT64",
    exp.DType.BOOLEAN: "BOOL",
}
_IN_PARQUET = {
    "BOOLEAN": pa.bool_(),
    "INTEGER": pa.int64(),
    "FLOAT": pa.float64(),
    "STRING": pa.string(),
    "DATE": pa.date32(),
    "TIMESTAMP": pa.timestamp("us"),
    "DATETIME": pa.timestamp("us"),
    "NUMERIC": pa.decimal128(38, 9),
}
_COMPARED = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between)


class Refusal(Exception):  # noqa: N818 -- it is an answer
    """An error as the API words it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


@dataclass(frozen=True)
class Plan:
    """A statement that was understood: what it reads, gives and lacks."""

    sql: str
    bytes: int
    schema: list[dict[str, str]]
    parameters: dict[str, str]
    writes: bool
    export: dict[str, str] = field(default_factory=dict)


@dataclass
class Engine:
    """One project's datasets and tables."""

    database: duckdb.DuckDBPyConnection = field(default_factory=duckdb.connect)
    tables: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    datasets: set[tuple[str, str]] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.database.execute("SET TimeZone = 'UTC'")

    def add_dataset(self, project: str, dataset: str) -> None:
        """Make one."""
        self.datasets.add((project, dataset))
        self.database.execute(f"CREATE SCHEMA {_schema(project, dataset)}")

    def add_table(self, place: tuple[str, str, str], resource: dict[str, Any]) -> None:
        """Make an empty one."""
        self.require_dataset(place)
        if place in self.tables:
            raise Refusal(409, "duplicate", f"Already Exists: Table {_shown(place)}")
        fields = resource.get("schema", {}).get("fields", [])
        columns = ", ".join(f'"{one["name"]}" {_DUCKS[one["type"].upper()]}' for one in fields)
        self.database.execute(f"CREATE TABLE {_name(place)} ({columns})")
        self.tables[place] = resource

    def drop_table(self, place: tuple[str, str, str]) -> None:
        """Remove one."""
        self.require_table(place)
        del self.tables[place]
        self.database.execute(f"DROP TABLE {_name(place)}")

    def describe(self, place: tuple[str, str, str]) -> dict[str, Any]:
        """The table as the API describes it."""
        self.require_table(place)
        project, dataset, table = place
        rows = self.database.execute(f"SELECT COUNT(*) FROM {_name(place)}").fetchall()[0][0]  # noqa: S608 -- quoted
        columns = self.columns(place)
        return {
            **self.tables[place],
            "kind": "bigquery#table",
            "id": f"{project}:{dataset}.{table}",
            "tableReference": {"projectId": project, "datasetId": dataset, "tableId": table},
            "type": "TABLE",
            "numRows": str(rows),
            "numBytes": str(8 * rows * len(columns)),
            "schema": {"fields": columns},
        }

    def columns(self, place: tuple[str, str, str]) -> list[dict[str, str]]:
        """Name and type of each."""
        return self._described(f"SELECT * FROM {_name(place)}")  # noqa: S608 -- quoted

    def load(self, place: tuple[str, str, str], parquet: str) -> int:
        """Append a file's rows to a table, by their names."""
        self.require_table(place)
        insert = f"INSERT INTO {_name(place)} BY NAME SELECT * FROM read_parquet(?)"  # noqa: S608 -- quoted
        return int(self.database.execute(insert, [parquet]).fetchall()[0][0])

    def plan(
        self, sql: str, default: tuple[str, str] | None, given: Mapping[str, str] | None
    ) -> Plan:
        """Understand a statement; `given` are the types of its parameters, None for none declared."""
        try:
            tree = sqlglot.parse_one(sql, read="bigquery")
        except SqlglotError as error:
            raise Refusal(400, "invalidQuery", f"Syntax error: {str(error)[:60]}") from error
        if isinstance(tree, exp.Export):
            inner = self.plan(tree.this.sql("bigquery"), default, given)
            return replace(inner, export=_export_options(tree))
        places = self._resolved(tree, default)
        wanted = self._parameters(tree, places)  # strict about times, as BigQuery is
        if given is not None:
            _require_types(wanted, given)
        read = 0
        for place in places.values():
            read += int(self.describe(place)["numBytes"])
        ducks = tree.sql("duckdb")
        if isinstance(tree, exp.Query):
            nothing = tree.copy()
            for node in list(nothing.find_all(exp.Parameter)):
                kind = _DUCKS[wanted[node.name]]
                node.replace(exp.Cast(this=exp.Null(), to=exp.DataType.build(kind, "duckdb")))
            return Plan(ducks, read, self._described(nothing.sql("duckdb")), wanted, writes=False)
        return Plan(ducks, read, [], wanted, writes=True)

    def run(self, plan: Plan, values: Mapping[str, str | None]) -> pa.Table:
        """Rows of a query; none of a statement that writes."""
        typed = {name: self._typed(values[name], kind) for name, kind in plan.parameters.items()}
        try:
            if plan.writes:
                self.database.execute(plan.sql, typed or None)
                self._find_new_tables()
                return pa.table({})
            return self.database.sql(plan.sql, params=typed or None).to_arrow_table()
        except duckdb.Error as error:
            raise Refusal(400, "invalidQuery", str(error).splitlines()[0]) from error

    def require_dataset(self, place: tuple[str, ...]) -> None:
        """Refuse as the API does."""
        project, dataset = place[:2]
        if (project, dataset) not in self.datasets:
            raise Refusal(
                404,
                "notFound",
                f"Not found: Dataset {project}:{dataset} was not found in location US",
            )

    def require_table(self, place: tuple[str, str, str]) -> None:
        """Refuse as the API does."""
        self.require_dataset(place)
        if place not in self.tables:
            raise Refusal(
                404, "notFound", f"Not found: Table {_shown(place)} was not found in location US"
            )

    def _typed(self, value: str | None, kind: str) -> Any:  # noqa: ANN401 -- a value of any type
        try:
            cast = f"SELECT CAST(? AS {_DUCKS[kind]})"
            return self.database.execute(cast, [value]).fetchall()[0][0]
        except duckdb.Error as error:
            raise Refusal(400, "invalid", f"Invalid value for type {kind}: {value}") from error

    def _described(self, sql: str) -> list[dict[str, str]]:
        try:
            rows = self.database.execute(f"DESCRIBE {sql}").fetchall()
        except duckdb.Error as error:
            raise Refusal(400, "invalidQuery", _in_its_words(str(error))) from error
        return [{"name": row[0], "mode": "NULLABLE", "type": _type(row[1])} for row in rows]

    def _resolved(
        self, tree: exp.Expr, default: tuple[str, str] | None
    ) -> dict[str, tuple[str, str, str]]:
        """The tables that it reads, each replaced by its name in DuckDB; what it makes is none."""
        ctes = {cte.alias for cte in tree.find_all(exp.CTE)}
        made = tree.this if isinstance(tree, exp.Create) else None
        found: dict[str, tuple[str, str, str]] = {}
        for table in list(tree.find_all(exp.Table)):
            if not isinstance(table.this, exp.Identifier) or (not table.db and table.name in ctes):
                continue
            if not table.db and default is None:
                raise Refusal(
                    400, "invalid", f'Table "{table.name}" must be qualified with a dataset'
                )
            project, dataset = default or ("", "")
            place = (table.catalog or project, table.db or dataset, table.name)
            alias = table.alias or table.name
            if table is made:
                self.require_dataset(place)
                if place in self.tables:
                    raise Refusal(409, "duplicate", f"Already Exists: Table {_shown(place)}")
            else:
                self.require_table(place)
                found[alias] = place
            table.set("catalog", None)
            table.set("db", exp.to_identifier(f"{place[0]}:{place[1]}", quoted=True))
            table.set("this", exp.to_identifier(place[2], quoted=True))
        return found

    def _parameters(
        self, tree: exp.Expr, places: Mapping[str, tuple[str, str, str]]
    ) -> dict[str, str]:
        """The type of each parameter, by what it is compared with or cast to; else INT64."""
        names = [node.name for node in tree.find_all(exp.Parameter)]
        schema: dict[str, Any] = {}
        for project, dataset, table in places.values():
            schema.setdefault(f"{project}:{dataset}", {})[table] = {
                one["name"]: _DUCKS[one["type"]] for one in self.columns((project, dataset, table))
            }
        qualified = qualify(
            tree.copy(), schema=schema, dialect="duckdb", validate_qualify_columns=False
        )
        typed = annotate_types(qualified, schema, dialect="duckdb")
        for node in typed.find_all(*_COMPARED):
            _require_one_kind_of_time(node)
        found = dict.fromkeys(names, "INT64")
        columns = {
            name: kind
            for tables in schema.values()
            for one in tables.values()
            for name, kind in one.items()
        }
        for node in typed.find_all(exp.Parameter):
            kind = _said_by(node, columns)
            if kind is not None:
                found[node.name] = kind
        return found

    def _find_new_tables(self) -> None:
        """See which tables a statement made."""
        there = self.database.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
        ).fetchall()
        for schema, table in there:
            project, _, dataset = schema.partition(":")
            if (project, dataset) in self.datasets:
                self.tables.setdefault((project, dataset, table), {})


def exported(table: pa.Table, kinds: list[str]) -> pa.Table:
    """Rows as BigQuery writes them to parquet: no time has a zone there."""
    columns = [
        column.cast(_IN_PARQUET[kind]) for column, kind in zip(table.columns, kinds, strict=True)
    ]
    return pa.table(columns, names=table.column_names)


def _export_options(tree: exp.Export) -> dict[str, str]:
    found = {}
    for one in tree.args["options"].expressions:
        name = "format" if isinstance(one, exp.FileFormatProperty) else one.name
        found[name.lower()] = (one.this if name == "format" else one.args["value"]).name
    if found.get("uri", "").count("*") != 1:
        raise Refusal(400, "invalidQuery", "Option 'uri' value must be a wildcard URI.")
    return found


def cells(table: pa.Table, kinds: list[str]) -> Iterator[dict[str, Any]]:
    """Rows as the API's JSON has them."""
    columns = [_texts(column, kind) for column, kind in zip(table.columns, kinds, strict=True)]
    for row in zip(*columns, strict=True):
        yield {"f": [{"v": value} for value in row]}


def page(table: pa.Table, kinds: list[str]) -> str:
    """The rows of a page as JSON text."""
    return json.dumps(list(cells(table, kinds)), separators=(",", ":"))


def _texts(column: pa.ChunkedArray, kind: str) -> list[Any]:
    if kind == "TIMESTAMP":
        return list(map(_text, column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()))
    if kind == "DATETIME":
        return list(pc.strftime(column.cast(pa.timestamp("us")), "%Y-%m-%dT%H:%M:%S").to_pylist())
    return list(map(_text, column.to_pylist()))


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _said_by(node: exp.Expr, columns: Mapping[str, str]) -> str | None:
    parent = node.parent
    if isinstance(parent, exp.Cast):
        return _PARAMETERS.get(parent.to.this)
    if not isinstance(parent, _COMPARED):
        return None
    for other in parent.iter_expressions():
        known = other.type
        if isinstance(other, exp.Column) and (known is None or known.this == exp.DType.UNKNOWN):
            known = exp.DataType.build(columns.get(other.name, "UNKNOWN"), "duckdb")
        if known is not None and known.this in _PARAMETERS:
            return _PARAMETERS[known.this]
    return None


def _require_one_kind_of_time(comparison: exp.Expr) -> None:
    sides = [one for one in comparison.iter_expressions() if not isinstance(one, exp.Literal)]
    kinds = {_PARAMETERS.get(one.type.this) for one in sides if one.type is not None}
    times = sorted(kind for kind in kinds if kind in {"TIMESTAMP", "DATETIME", "DATE"})
    if len(times) > 1:
        raise Refusal(
            400,
            "invalidQuery",
            f"No matching signature for operator for argument types: {', '.join(times)}",
        )


def _require_types(wanted: Mapping[str, str], given: Mapping[str, str]) -> None:
    for name, kind in wanted.items():
        if name not in given:
            raise Refusal(400, "invalidQuery", f"Query parameter '{name}' not found")
        if given[name] != kind:
            raise Refusal(
                400,
                "invalidQuery",
                f"No matching signature for operator for argument types: {kind}, {given[name]}",
            )


def _in_its_words(said: str) -> str:
    """DuckDB's complaint about a column as BigQuery words it."""
    found = re.search(r'Referenced column "(\w+)"', said)
    return f"Unrecognized name: {found[1]} at [1:8]" if found else said.splitlines()[0]


def _type(duck: str) -> str:
    if duck.startswith("DECIMAL"):
        return "NUMERIC"
    return _OURS.get(duck, "RECORD")


def _schema(project: str, dataset: str) -> str:
    return f'"{project}:{dataset}"'


def _name(place: tuple[str, str, str]) -> str:
    return f'{_schema(*place[:2])}."{place[2]}"'


def _shown(place: tuple[str, str, str]) -> str:
    return f"{place[0]}:{place[1]}.{place[2]}"
