"""Rows that wait in Parquet files, loaded into a table that only their session sees."""

from collections.abc import Mapping

from lodestar.adapters.snowflake.session import Session
from lodestar.adapters.warehouse.spool import ParquetSpool

__all__ = ["loaded_aside"]


def loaded_aside(
    session: Session, aside: str, columns: Mapping[str, str], rows: ParquetSpool
) -> int:
    """Make the table, which goes with its session, and load it; how many rows came.

    `aside` and the names of `columns` (name → type) are as SQL has them.
    """
    listed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    session.rows(f"CREATE TEMPORARY TABLE {aside} ({listed})")
    session.rows(f"CREATE TEMPORARY STAGE {aside}")
    for number, part in enumerate(rows.parts()):
        session.put(part, f"part_{number}.parquet", aside)
    session.rows(
        f"COPY INTO {aside} FROM @{aside} "
        "FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE) "
        "MATCH_BY_COLUMN_NAME = CASE_SENSITIVE ON_ERROR = ABORT_STATEMENT"
    )
    ((came,),) = session.rows(f"SELECT COUNT(*) FROM {aside}")  # noqa: S608 -- quoted
    return int(came)
