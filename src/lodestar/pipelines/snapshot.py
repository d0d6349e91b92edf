"""The augmented training set as a file, so that LOCAL has real features without any server."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lodestar.core.ordering import in_content_order
from lodestar.errors import NotAllowedError
from lodestar.factory.recipe import Factory
from lodestar.interface.progress import Progress
from lodestar.pipelines.reading import read_rows
from lodestar.settings.loading import Settings

__all__ = ["TakenSnapshot", "snapshot"]

KEY_FILE = ".lodestar/snapshot.key"
BATCH_ROWS = 65_536


@dataclass(frozen=True)
class TakenSnapshot:
    """Where the snapshot lies and what is in it."""

    path: str
    rows: int
    of: int
    hashed: tuple[str, ...]


def snapshot(
    settings: Settings,
    params: Mapping[str, str],
    *,
    rows: int | None,
    seed: int,
    tell: Progress,
) -> TakenSnapshot:
    """Write spine and features of the recipe to `data.snapshots`, sampled if `rows` says so.

    The same data, `rows` and `seed` give the same sample. Columns that features/*.yaml mark as
    sensitive are replaced by a keyed hash (HMAC-SHA256) of the same type; the key stays in this
    project.

    Raises:
        NotAllowedError: the environment has no feature store to take features from.
    """
    factory = Factory(settings.environment, settings.loaded, work="snapshot")
    if factory.feature_store is None:
        raise NotAllowedError(
            f"{settings.environment.name} has no feature store to take features from",
            hint="snapshots are taken in DEV, for LOCAL: --env dev",
        )
    factory.preflight()
    tell.stage("Reading spine and features")
    spine = factory.spine(factory.loader, params)
    table = in_content_order(read_rows(spine.reader, factory.augmenter(), tell))
    chosen = _sample(table, rows, seed)
    marked = factory.features.sensitive
    sensitive = tuple(name for name in chosen.column_names if name in marked)
    key = _key(settings.environment.project)
    for name in sensitive:
        place = chosen.schema.get_field_index(name)
        chosen = chosen.set_column(place, name, _hashed(chosen.column(name), key, name))
    tell.stage("Writing the snapshot")
    data = settings.environment.config.data
    path = f"{data.snapshots.rstrip('/')}/{settings.loaded.name}.parquet"
    with factory.writer(path).sink(path, chosen.schema) as sink:
        for batch in chosen.to_batches(max_chunksize=BATCH_ROWS):
            sink.write(batch)
    return TakenSnapshot(path, chosen.num_rows, table.num_rows, sensitive)


def _sample(table: pa.Table, rows: int | None, seed: int) -> pa.Table:
    if rows is None or rows >= table.num_rows:
        return table
    chosen = np.random.default_rng(seed).choice(table.num_rows, rows, replace=False)
    return table.take(np.sort(chosen)).combine_chunks()


def _key(project: Path) -> bytes:
    """This project's own; the same in later snapshots, and of no use to whoever gets the file alone."""
    path = project / KEY_FILE
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(secrets.token_bytes(32))
    return path.read_bytes()


def _hashed(column: pa.ChunkedArray, key: bytes, name: str) -> pa.Array:
    """Equal values stay equal, nulls null; nothing else of a value is left."""
    codes = pc.dictionary_encode(column.combine_chunks())
    known = [_digest(str(value), key, name) for value in codes.dictionary.to_pylist()]
    if pa.types.is_string(column.type):
        values = pa.array([digest.hex()[:16] for digest in known], pa.string())
    else:
        numbers = [int.from_bytes(digest[:4], "big") for digest in known]
        values = pa.array(numbers, pa.int64()).cast(column.type)
    return values.take(codes.indices)


def _digest(value: str, key: bytes, name: str) -> bytes:
    return hmac.new(key, f"{name}\0{value}".encode(), hashlib.sha256).digest()
