"""The contract of writers whose destinations are tables, whichever database they are in."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pytest

from lodestar.errors import DataError, SchemaError
from lodestar.interface.data import SpineReader
from lodestar.testing.data import FrameWriterContract

__all__ = ["FEBRUARY", "JANUARY", "TableWriterContract", "scores"]

JANUARY, FEBRUARY = {"batch_key": "january"}, {"batch_key": "february"}


def scores(batch: Mapping[str, str], values: Sequence[float]) -> pa.Table:
    """What a batch scored."""
    return pa.table(
        {
            "user_id": [f"u{number}" for number in range(len(values))],
            "batch_key": [batch["batch_key"]] * len(values),
            "score": [float(value) for value in values],
        }
    )


class TablePlace(Protocol):
    """A schema or dataset of a test's own."""

    def tables(self) -> list[str]:
        """The names of its tables."""
        ...

    def reader(self, sql: str) -> SpineReader:
        """Read by a query."""
        ...


class TableWriterContract(FrameWriterContract):
    """Writes `predictions` in a place that a subclass gives."""

    def place(self) -> TablePlace:
        raise NotImplementedError

    def probed(self) -> str:
        return self.destination().rpartition(".")[0]

    def content(self) -> pa.Table | None:
        if "predictions" not in self.place().tables():
            return None
        return self.place().reader("SELECT * FROM predictions").read(chunk_rows=1_000).read_all()

    def leftovers(self) -> list[Path]:
        """Tables, which are no files; a test prints their names alike."""
        return [Path(name) for name in self.place().tables() if name != "predictions"]

    def replace(self, table: pa.Table, values: Mapping[str, str]) -> None:
        """Write a table in place of the rows that have these values."""
        with self.writer().sink(self.destination(), table.schema, replace=values) as sink:
            for batch in table.to_batches(max_chunksize=2):
                sink.write(batch)

    def scored(self) -> list[tuple[str, float]]:
        """Each row's batch and score, in order."""
        content = self.content()
        assert content is not None
        return sorted((row["batch_key"], row["score"]) for row in content.to_pylist())

    def test_the_same_batch_again_replaces_its_own_rows_and_no_others(self) -> None:
        self.replace(scores(JANUARY, [1, 2, 3]), JANUARY)
        self.replace(scores(FEBRUARY, [7, 8]), FEBRUARY)
        for _ in range(2):
            self.replace(scores(JANUARY, [4, 5]), JANUARY)
        assert self.scored() == [("february", 7), ("february", 8), ("january", 4), ("january", 5)]
        assert not self.leftovers()

    def test_a_batch_of_no_rows_removes_what_it_had(self) -> None:
        self.replace(scores(JANUARY, [1, 2]), JANUARY)
        self.replace(scores(FEBRUARY, [7]), FEBRUARY)
        self.replace(scores(JANUARY, [1]).slice(0, 0), JANUARY)
        assert self.scored() == [("february", 7)]

    def test_a_row_that_the_next_go_would_not_find_is_refused(self) -> None:
        self.replace(scores(JANUARY, [1]), JANUARY)
        nulls = scores(JANUARY, [2]).set_column(1, "batch_key", pa.nulls(1, pa.string()))
        for other in (scores(FEBRUARY, [2]), nulls):
            with pytest.raises(DataError, match="another batch_key than 'january'"):
                self.replace(other, JANUARY)
        assert self.scored() == [("january", 1)]
        assert not self.leftovers()

    @pytest.mark.parametrize("column", ["no_such", "score"])
    def test_rows_are_replaced_by_a_text_column_alone(self, column: str) -> None:
        with pytest.raises(SchemaError, match=column):
            self.replace(scores(JANUARY, [1]), {column: "1"})

    def test_a_value_to_replace_by_is_no_sql(self) -> None:
        hostile = {"batch_key": "x' OR 'a' = 'a"}
        self.replace(scores(JANUARY, [1]), JANUARY)
        self.replace(scores(hostile, [2]), hostile)
        self.replace(scores(hostile, [3]), hostile)
        assert self.scored() == [("january", 1), (hostile["batch_key"], 3)]

    def test_columns_in_another_order_are_the_same(self) -> None:
        self.write(scores(JANUARY, [1]))
        self.write(scores(JANUARY, [2]).select(["score", "user_id", "batch_key"]))
        assert self.scored() == [("january", 2)]
