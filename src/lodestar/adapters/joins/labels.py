"""Predictions joined with labels that came later, in a DuckDB file that goes with the process.

Which label belongs to a prediction:

- by a request's id: the only one, the newest where it was corrected;
- by the entity's keys, where both have a time: the first that came at or after the prediction;
- by the entity's keys alone: the only one, the newest where labels have a time.

Labels that disagree (of one key, and one moment) are nobody's. Memory is bounded by DuckDB's limit,
however many rows there are; what does not fit waits on disk.
"""

# ruff: noqa: S608 -- every name in these statements is this file's own, and every number one of ours

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa

from lodestar.core.labels.judge import LabelledPart
from lodestar.core.labels.results import Coverage, JoinCounts
from lodestar.errors import ExternalError, first_line

__all__ = ["JoinPlan", "JoinedLabels", "LabelJoin", "label_join"]

MEMORY = "256MB"
THREADS = 2
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LENGTHS = {"day": 86_400_000_000, "hour": 3_600_000_000}
PART = 0


@dataclass(frozen=True)
class JoinPlan:
    """How rows are joined. `keys` are matched by equality, in their order in both.

    `by_request`: the keys name one prediction. `single`: a key that several predictions have names none.
    `timed` and `dated`: predictions, and labels, have a time. A label may take `within`.
    """

    keys: tuple[str, ...]
    by_request: bool
    single: bool
    timed: bool
    dated: bool
    unit: Literal["day", "hour"]
    within: timedelta | None

    @property
    def ordered(self) -> bool:
        """Whether a prediction takes the first label at or after it."""
        return self.timed and self.dated and not self.by_request


class LabelJoin:
    """Takes predictions and labels by batches: `key_0` …, `moment` (µs since 1970), codes."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, plan: JoinPlan) -> None:
        self._connection = connection
        self._plan = plan
        self._rows = 0
        self._made: set[str] = set()

    def add_predictions(self, batch: pa.Table) -> None:
        """Keep predictions: keys, `moment`, codes; without a time `moment` is null."""
        count = batch.num_rows
        numbers = np.arange(self._rows, self._rows + count)
        self._rows += count
        length = LENGTHS[self._plan.unit]
        part = pa.array(np.full(count, PART))
        if self._plan.timed:
            part = pa.array(np.floor_divide(batch.column("moment").to_numpy(), length))
        batch = batch.append_column("seq", pa.array(numbers)).append_column("part", part)
        self._keep("predictions", batch)

    def add_labels(self, batch: pa.Table) -> None:
        """Keep labels: keys, `moment`, `target`, `treatment` (0 where the task has none)."""
        self._keep("labels", batch)

    def join(self, counted: JoinCounts) -> "JoinedLabels":
        """Join all that was added; `counted` is what was left out before.

        Raises:
            ExternalError: there is no room on disk.
        """
        with _translated():
            counts = _Joining(self._connection, self._plan).run(counted)
        return JoinedLabels(self._connection, self._plan, counts)

    def _keep(self, name: str, batch: pa.Table) -> None:
        with _translated():
            self._connection.register("batch", batch)
            if name not in self._made:
                self._connection.execute(f"CREATE TABLE {name} AS FROM batch LIMIT 0")
                self._made.add(name)
            self._connection.execute(f"INSERT INTO {name} BY NAME FROM batch")
            self._connection.unregister("batch")


@contextmanager
def label_join(plan: JoinPlan, *, folder: Path | None = None) -> Iterator[LabelJoin]:
    """A join in a temporary folder (below `folder`, by default the system's), gone when this ends."""
    with ExitStack() as stack:
        with _translated():
            place = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="lodestar-labels-", dir=folder)
            )
            settings: dict[str, str | bool | int | float | list[str]] = {
                "memory_limit": MEMORY,
                "threads": THREADS,
                "temp_directory": str(Path(place) / "spilled"),
                "preserve_insertion_order": False,
            }
            connection = duckdb.connect(str(Path(place) / "join.duckdb"), config=settings)
            stack.callback(connection.close)
        yield LabelJoin(connection, plan)


class JoinedLabels:
    """Predictions with their labels, on disk."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, plan: JoinPlan, counts: JoinCounts
    ) -> None:
        self._connection = connection
        self._plan = plan
        self.counts = counts

    @property
    def coverage(self) -> Coverage:
        """Of all predictions."""
        ((_, coverage),) = self._covered("0") or [(0, Coverage(0, 0))]
        return coverage

    def parts(self) -> Sequence[LabelledPart]:
        """Every part that has a prediction, in order of time."""
        length = LENGTHS[self._plan.unit] * MICROSECOND
        return [
            LabelledPart(number, EPOCH + number * length if self._plan.timed else None, coverage)
            for number, coverage in self._covered("part")
        ]

    def rows(self, numbers: Sequence[int], most: int) -> pa.Table:
        """Labelled rows of these parts; where there are more than `most`, always the same sample."""
        listed = ", ".join(str(int(number)) for number in numbers) or "NULL"
        with _translated():
            found = self._connection.sql(
                "SELECT * EXCLUDE (seq, part, delay) FROM joined "
                f"WHERE part IN ({listed}) AND target IS NOT NULL ORDER BY hash(seq), seq LIMIT $1",
                params=[most],
            )
            return found.to_arrow_table()

    def _covered(self, group: str) -> list[tuple[int, Coverage]]:
        with _translated():
            found = self._connection.execute(
                f"SELECT {group} AS number, count(*), count(target), "
                "approx_quantile(delay, 0.5), approx_quantile(delay, 0.95) "
                "FROM joined GROUP BY number ORDER BY number"
            ).fetchall()
        return [
            (int(number), Coverage(rows, labelled, _seconds(half), _seconds(most)))
            for number, rows, labelled, half, most in found
        ]


@dataclass(frozen=True)
class _Joining:
    """The statements, one after the other."""

    connection: duckdb.DuckDBPyConnection
    plan: JoinPlan

    def run(self, counted: JoinCounts) -> JoinCounts:
        ambiguous = self._drop_ambiguous() if self.plan.single else 0
        conflicting = self._clean()
        self._join()
        late = self._drop_late()
        without, before = self._unused()
        for done in ("predictions", "labels", "moments", "clean"):
            self.connection.execute(f"DROP TABLE {done}")
        return replace(
            counted,
            ambiguous=ambiguous,
            conflicting=conflicting,
            late=late,
            without_prediction=without,
            before=before,
        )

    @property
    def _keys(self) -> str:
        return ", ".join(f"key_{place}" for place in range(len(self.plan.keys)))

    def _same_keys(self, one: str = "p", other: str = "l") -> str:
        places = range(len(self.plan.keys))
        return " AND ".join(f"{one}.key_{place} = {other}.key_{place}" for place in places)

    def _drop_ambiguous(self) -> int:
        """Leave out predictions that their key does not tell apart."""
        self.connection.execute(
            f"CREATE TABLE several AS SELECT {self._keys} FROM predictions "
            f"GROUP BY {self._keys} HAVING count(*) > 1"
        )
        same = self._same_keys("predictions", "several")
        return self._number(f"DELETE FROM predictions USING several WHERE {same}")

    def _clean(self) -> int:
        """Leave one label per key and moment; the number of labels that disagree."""
        self.connection.execute(
            f"CREATE TABLE moments AS SELECT {self._keys}, moment, min(target) AS target, "
            "min(treatment) AS treatment, count(*) AS times, "
            "min(target) = max(target) AND min(treatment) = max(treatment) AS agree "
            f"FROM labels GROUP BY {self._keys}, moment"
        )
        conflicting = self._number("SELECT coalesce(sum(times), 0) FROM moments WHERE NOT agree")
        newest = ""
        if self.plan.dated and not self.plan.ordered:
            newest = (
                f"QUALIFY row_number() OVER (PARTITION BY {self._keys} ORDER BY moment DESC) = 1"
            )
        self.connection.execute(
            f"CREATE TABLE clean AS FROM (SELECT * FROM moments {newest}) WHERE agree"
        )
        return conflicting

    def _join(self) -> None:
        asof, later = ("ASOF", " AND p.moment <= l.moment") if self.plan.ordered else ("", "")
        self.connection.execute(
            "CREATE TABLE joined AS SELECT p.* EXCLUDE (moment, "
            f"{self._keys}), l.target, l.treatment, "
            "CASE WHEN l.moment >= p.moment THEN l.moment - p.moment END AS delay "
            f"FROM predictions AS p {asof} LEFT JOIN clean AS l ON {self._same_keys()}{later}"
        )

    def _drop_late(self) -> int:
        if self.plan.within is None:
            return 0
        return self._number(
            "UPDATE joined SET target = NULL, treatment = NULL, delay = NULL "
            f"WHERE delay > {self.plan.within // MICROSECOND}"
        )

    def _unused(self) -> tuple[int, int]:
        """Labels of keys that no prediction has, and those older than every prediction of theirs."""
        found = self.connection.execute(
            "SELECT coalesce(sum(l.times) FILTER (WHERE p.rows IS NULL), 0), "
            "coalesce(sum(l.times) FILTER (WHERE l.moment < p.moment), 0) "
            f"FROM moments AS l LEFT JOIN (SELECT {self._keys}, min(moment) AS moment, count(*) AS rows "
            f"FROM predictions GROUP BY {self._keys}) AS p ON {self._same_keys()}"
        ).fetchone()
        without, before = found or (0, 0)
        return int(without), int(before)

    def _number(self, statement: str) -> int:
        found = self.connection.execute(statement).fetchone()
        return int(found[0]) if found else 0


def _seconds(micros: float | None) -> float | None:
    return None if micros is None else float(micros) / 1e6


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (duckdb.IOException, duckdb.OutOfMemoryException, OSError) as error:
        raise ExternalError(
            f"the labels cannot be joined in {tempfile.gettempdir()}: {first_line(error)}",
            hint="free some space there, or set TMPDIR to a folder that has it",
        ) from error
