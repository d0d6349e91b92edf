"""SQL over files: DuckDB runs the recipe's query, each table name being a file below one directory."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from lodestar.errors import DataError, choices
from lodestar.schema import canonical, canonical_schema
from lodestar.settings.config import Data
from lodestar.sql import Query

__all__ = ["DuckDBReader"]

_TABLE = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)?$")
_READERS = {".parquet": "read_parquet", ".csv": "read_csv", ".arrow": ""}
# Said, not guessed: the guess leaves out lines that do not fit it, and a cut file would look whole.
_CSV = """, delim = ',', quote = '"', escape = '"', comment = '', header = true, skip = 0, \
strict_mode = true, null_padding = false"""


class DuckDBReader:
    """One query over the files below `root`; nothing outside `root` can be read or written."""

    def __init__(self, root: Path, query: Query, params: Mapping[str, str]) -> None:
        if not (query.tables or root.is_dir()):
            raise DataError(
                f"there is no folder {root}, where the tables should be",
                hint="see data.root in the config",
            )
        self._root = root
        self._sql = query.to("duckdb")
        self._params = dict(params)
        self._files = {table: self._file(table) for table in query.tables}

    @classmethod
    def from_config(
        cls, data: Data, project: Path, query: Query, params: Mapping[str, str]
    ) -> "DuckDBReader":
        """Run the query over the config's data directory."""
        return cls(project / data.root, query, params)

    def schema(self) -> pa.Schema:
        """The query's columns; no rows are read."""
        # An empty value stands for one that is not known yet: the columns hardly depend on it.
        known = {name: value or None for name, value in self._params.items()}
        with _translated(), self._connection() as connection:
            relation = connection.sql(self._sql, params=known or None)
            found = relation.limit(0).to_arrow_table()
            # A subquery such as limit() renames what stands twice; the query's own names count.
            return canonical_schema(found.rename_columns(relation.columns).schema)

    def read(self, *, chunk_rows: int) -> pa.RecordBatchReader:
        """Stream the rows in the query's order."""
        target = self.schema()

        def stream() -> Iterator[pa.RecordBatch]:
            with _translated(), self._connection() as connection:
                relation = connection.sql(self._sql, params=self._params or None)
                with relation.to_arrow_reader(chunk_rows) as reader:
                    for batch in reader:
                        yield canonical(batch, target)

        return pa.RecordBatchReader.from_batches(target, stream())

    @contextmanager
    def _connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect(":memory:") as connection:
            connection.execute("SET TimeZone = 'UTC'")
            # Prefetching holds whole column chunks of a row group, and helps with remote files alone.
            connection.execute("SET disable_parquet_prefetching = true")
            # Files are read once: keeping what was read would cost as much memory as they are long.
            connection.execute("SET enable_external_file_cache = false")
            for table, path in self._files.items():
                schema, _, _ = table.rpartition(".")
                if schema:
                    connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
                self._create_view(connection, table, path)
            # Paths and names above were checked; from here on the query cannot reach beyond root.
            connection.execute(f"SET allowed_directories = [{_quoted(str(self._root))}]")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            yield connection

    @staticmethod
    def _create_view(connection: duckdb.DuckDBPyConnection, table: str, path: Path) -> None:
        name = ".".join(f'"{part}"' for part in table.split("."))
        function = _READERS[path.suffix]
        if function:
            options = _CSV if path.suffix == ".csv" else ""
            source = f"{function}({_quoted(str(path))}{options})"
            connection.execute(f"CREATE VIEW {name} AS FROM {source}")
            return
        with pa.memory_map(str(path)) as file:
            # A relation's view has no schema of its own, so another one stands before it.
            connection.from_arrow(pa.ipc.open_file(file).read_all()).create_view(f"arrow:{table}")
        connection.execute(f'CREATE VIEW {name} AS FROM "arrow:{table}"')

    def _file(self, table: str) -> Path:
        if not _TABLE.match(table):
            raise DataError(
                f"{table!r} is no table name", hint=f"each table is a file below {self._root.name}/"
            )
        stem = self._root / table.replace(".", "/")
        for suffix in _READERS:
            path = stem.with_suffix(suffix)
            if path.is_file():
                return path
        raise DataError(
            f"the SQL reads the table {table!r}, but there is no {stem.name}.parquet, .csv or .arrow "
            f"in {stem.parent}",
            hint=choices(table, self._tables()),
        )

    def _tables(self) -> list[str]:
        if not self._root.is_dir():
            return []
        return sorted(path.stem for path in self._root.iterdir() if path.suffix in _READERS)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        # What goes wrong in the middle of a stream comes as Arrow's error.
        reason = str(error).split("\n\nLINE")[0].strip()
        raise DataError(f"the SQL fails on the data: {reason}") from error
