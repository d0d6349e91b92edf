"""The proof of "one artifact, one logic": the same entities through the batch path and online."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from lodestar.artifact.wrapper import PyfuncWrapper, load_wrapper
from lodestar.core.augmenter import Augmenter, RunMode
from lodestar.errors import DataError, NotAllowedError
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.data import SpineReader
from lodestar.interface.progress import Progress
from lodestar.pipelines.asking import ServedApi
from lodestar.pipelines.batch_inference import loader_of
from lodestar.schema import TIMESTAMP
from lodestar.settings.loading import Environment

__all__ = ["ComparedColumn", "Parity", "parity"]

Stage = Literal["features", "preprocessed", "predictions", "over http"]


@dataclass(frozen=True)
class ComparedColumn:
    """One column of one stage: in how many rows the two paths differ, and the first such row."""

    stage: Stage
    name: str
    differing: int
    first_row: int | None = None
    batch: str = ""
    online: str = ""


@dataclass(frozen=True)
class Parity:
    """Every compared column, in the order of the way that rows take."""

    run_id: str
    rows: int
    as_of: datetime
    columns: tuple[ComparedColumn, ...]

    @property
    def broken(self) -> ComparedColumn | None:
        """The first column that differs, in the first stage that does."""
        return next((column for column in self.columns if column.differing), None)


def parity(
    environment: Environment,
    reference: str,
    params: Mapping[str, str],
    *,
    rows: int,
    tell: Progress,
    url: str | None = None,
) -> Parity:
    """Compare features, what the preprocessor makes of them, and predictions, bit by bit.

    The entities are the first `rows` of the artifact's own loader; the batch path sees them as of the
    materialisation, the online path as the store has them. With `url` a server of the same run is asked
    about them as well, and its predictions are compared with the batch path's.

    Raises:
        NotAllowedError: the environment has no feature store, or the artifact takes no features.
        DataError: there are no rows, or the namespaces were not materialised to one time.
    """
    factory = EnvironmentFactory(environment)
    tell.stage("Verifying the artifact")
    with factory.store().opened(reference) as opened:
        wrapper, warnings = load_wrapper(opened.folder, digest=opened.digest)
    for note in (*opened.notes, *warnings):
        tell.note(note)
    factory = EnvironmentFactory(environment, work=f"parity {opened.run_id[:8]}")
    augmenter = factory.bound(wrapper)
    as_of = _materialised(factory, environment.name, augmenter, wrapper)
    tell.stage("Reading the entities")
    spine = factory.spine(loader_of(wrapper), params)
    entities = _as_of(_first(spine.reader, rows), wrapper, as_of)
    tell.stage("Comparing the batch path with the online path")
    ways: tuple[RunMode, RunMode] = ("batch", "serving")
    batch, online = (_through(augmenter, entities, way, as_of) for way in ways)
    columns = list(_compared(wrapper, augmenter, batch, online))
    if url is not None:
        tell.stage(f"Asking {url}")
        columns += _over_http(ServedApi.at(url), opened.run_id, wrapper, entities, batch)
    return Parity(opened.run_id, entities.num_rows, as_of, tuple(columns))


def _materialised(
    factory: EnvironmentFactory, environment: str, augmenter: Augmenter, wrapper: PyfuncWrapper
) -> datetime:
    store = factory.online_store()
    if store is None or factory.feature_store is None:
        raise NotAllowedError(
            f"{environment} has no online store to compare with", hint="use --env dev"
        )
    if not augmenter.selection:
        raise NotAllowedError("the artifact takes no features from a feature store")
    catalog = factory.catalog_of(wrapper.contents)
    names = [item["feature_namespace"] for item in augmenter.selection]
    times = {name: store.watermark(catalog.view(name)) for name in names}
    never = [name for name, time in times.items() if time is None]
    if never:
        raise DataError(
            f"{', '.join(never)}: never materialised",
            hint="lodestar features materialize",
        )
    known = {time for time in times.values() if time is not None}
    if len(known) > 1:
        said = ", ".join(f"{name} until {time:%Y-%m-%d %H:%M:%S}" for name, time in times.items())
        raise DataError(
            f"the namespaces were materialised to different times: {said}",
            hint="lodestar features materialize brings all of them to one",
        )
    return known.pop()


def _first(reader: SpineReader, rows: int) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    with reader.read(chunk_rows=rows) as stream:
        for batch in stream:
            batches.append(batch.slice(0, rows - sum(part.num_rows for part in batches)))
            if sum(part.num_rows for part in batches) >= rows:
                break
    if not batches:
        raise DataError("the loader returned no rows", hint="check the context parameters")
    return pa.Table.from_batches(batches).combine_chunks()


def _as_of(entities: pa.Table, wrapper: PyfuncWrapper, as_of: datetime) -> pa.Table:
    """The same entities, all asked about at the same time."""
    name = wrapper.contents.training_methodology["event_timestamp_col"]
    times = pa.array([as_of] * entities.num_rows, TIMESTAMP)
    return entities.set_column(entities.schema.get_field_index(name), name, times)


def _through(
    augmenter: Augmenter, entities: pa.Table, run_mode: RunMode, as_of: datetime
) -> pa.RecordBatch:
    with augmenter.augment(entities.to_reader(), run_mode=run_mode, now=as_of) as rows:
        return rows.read_all().combine_chunks().to_batches()[0]


def _compared(
    wrapper: PyfuncWrapper, augmenter: Augmenter, batch: pa.RecordBatch, online: pa.RecordBatch
) -> Iterable[ComparedColumn]:
    for name in augmenter.features:
        yield _column("features", name, batch.column(name), online.column(name))
    one, other = wrapper.score(batch), wrapper.score(online)
    for place, name in enumerate(one.features.names):
        values = [pa.array(scored.features.array()[:, place]) for scored in (one, other)]
        yield _column("preprocessed", name, *values)
    for name, values in one.predictions.items():
        yield _column("predictions", name, values, other.predictions[name])


def _over_http(
    api: ServedApi, run_id: str, wrapper: PyfuncWrapper, entities: pa.Table, batch: pa.RecordBatch
) -> Iterable[ComparedColumn]:
    """The same entities as a client sends them: by the fields of a request."""
    asked = entities.select([name for name in api.fields(run_id) if name in entities.column_names])
    expected = wrapper.score(batch).predictions
    for name, values in api.predictions(asked, expected).items():
        yield _column("over http", name, expected[name], values)


def _column(stage: Stage, name: str, batch: pa.Array, online: pa.Array) -> ComparedColumn:
    same = _bitwise(batch, online)
    differing = [row for row, equal in enumerate(same) if not equal]
    if not differing:
        return ComparedColumn(stage, name, 0)
    first = differing[0]
    return ComparedColumn(
        stage, name, len(differing), first, str(batch[first].as_py()), str(online[first].as_py())
    )


def _bitwise(one: pa.Array, other: pa.Array) -> list[bool]:
    if not one.type.equals(other.type):
        return [False] * len(one)
    if pa.types.is_floating(one.type):
        bits = pa.int64() if one.type == pa.float64() else pa.int32()
        one, other = (array.view(bits) for array in (one, other))
    equal = pc.fill_null(pc.equal(one, other), False)  # noqa: FBT003 -- null equals null alone
    both_null = pc.and_(one.is_null(), other.is_null())
    found: list[bool] = pc.or_(equal, both_null).to_pylist()
    return found
