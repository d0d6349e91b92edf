"""A query's rows in parts: Snowflake keeps its result for a day, and workers fetch batches of it.

A part says which result and which batches. The links and keys by which those are downloaded are as good
as the rows, and end after some hours: whoever reads a part asks for them anew.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from lodestar.adapters.parts import MovingPart, grouped
from lodestar.adapters.snowflake.names import canonical_chunks
from lodestar.adapters.snowflake.session import KeptResult, opened
from lodestar.errors import UsageError
from lodestar.interface.parts import Division
from lodestar.settings.warehouses import Snowflake

__all__ = ["SnowflakePart", "snowflake_parts"]


class SnowflakePart(MovingPart):
    """Some batches of a result, `stop` not among them."""

    def __init__(
        self,
        config: Snowflake,
        project: Path,
        result: KeptResult,
        batches: range,
        target: pa.Schema,
        first_row: int,
        division: Division,
    ) -> None:
        super().__init__(sum(result.counts[at] for at in batches), first_row, division)
        self._config: Snowflake | None = config
        self._application = config.application_name
        self._project = project
        self._result = result
        self._batches = batches
        self._target = target

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_config": None}

    def _fetched(self) -> Iterator[pa.RecordBatch]:
        with opened(self._section(), self._project) as session:
            batches = session.fetch(self._result, self._batches)
            yield from canonical_chunks(batches, self._target, self._chunk_rows)

    def _section(self) -> Snowflake:
        """The account as this process's own config and variables have it."""
        if self._config is None:
            found = self._environment().config.data.snowflake
            if found is None:
                raise UsageError("the config says no more which account of Snowflake it was")
            self._config = found.model_copy(update={"application_name": self._application})
        return self._config


def snowflake_parts(
    config: Snowflake, project: Path, result: KeptResult, target: pa.Schema, division: Division
) -> list[SnowflakePart]:
    """All rows of a result, in its order; a part has at least one whole batch."""
    parts, first = [], 0
    for start, stop, rows in grouped(result.counts, division.part_rows):
        part = SnowflakePart(config, project, result, range(start, stop), target, first, division)
        parts.append(part)
        first += rows
    return parts
