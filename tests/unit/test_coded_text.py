"""Text in the dictionaries in which files have it: which columns come so, and that it is the same."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from sklearn.preprocessing import FunctionTransformer
from tests.planning import artifact, training_rows

from lodestar.adapters.files.rows import FileReader
from lodestar.adapters.registry import URI_READERS, adapter
from lodestar.artifact.wrapper import PyfuncWrapper
from lodestar.core.drift.sketches import Reference
from lodestar.core.preprocessor import TransformerPreprocessor
from lodestar.core.trees.compiled import LEAST_ROWS
from lodestar.interface.data import SpineReader
from lodestar.interface.parts import Batches, Division, PartTask, RowsAtHand, ScoredPart
from lodestar.pipelines.batch_rows import with_codes
from lodestar.pipelines.scoring import FramePlan, RowScoring, compiled
from lodestar.schema import ARROW_TYPES, Column, FrameSchema

ROWS = 40_000
NAMES = ("colour", "name", "size", "id")
CODED = pa.dictionary(pa.int32(), pa.string())


def table_of(rows: int = ROWS) -> pa.Table:
    """Few colours, some null; as many names as rows."""
    colours = pa.array([("red", "green", None)[at % 3] for at in range(rows)], pa.string())
    names = pa.array([f"name {at}" for at in range(rows)])
    return pa.table({"id": pa.array(range(rows)), "colour": colours, "name": names})


def written(path: Path, **options: object) -> FileReader:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table_of(), path, row_group_size=16_000, **options)
    return FileReader(path)


def test_only_named_text_in_small_dictionaries_comes_as_such(tmp_path: Path) -> None:
    plain = written(tmp_path / "rows.parquet")
    coded = plain.coded(NAMES)
    kinds = {field.name: field.type for field in coded.schema()}
    assert kinds == {"id": pa.int64(), "colour": CODED, "name": pa.string()}
    assert plain.coded(["name"]).schema() == plain.schema()
    with coded.read(chunk_rows=7_000) as batches:
        found = batches.read_all()
    assert found.schema == coded.schema()
    assert found.cast(plain.schema()).equals(table_of())


def test_a_file_without_dictionaries_is_read_as_ever(tmp_path: Path) -> None:
    plain = written(tmp_path / "rows.parquet", use_dictionary=False)
    assert plain.coded(NAMES).schema() == plain.schema()
    csv = tmp_path / "rows.csv"
    pacsv.write_csv(table_of(10), csv)
    assert FileReader(csv).coded(NAMES).schema() == FileReader(csv).schema()


def test_parts_have_the_same_digests_and_the_text_in_dictionaries(tmp_path: Path) -> None:
    plain = written(tmp_path / "rows.parquet")
    division = Division(chunk_rows=7_000, part_rows=16_000)
    with plain.parts(division) as one, plain.coded(NAMES).parts(division) as other:
        assert one.parts is not None
        assert other.parts is not None
        digests = [[part.digest() for part in parts.parts or ()] for parts in (one, other)]
        batches = [batch for part in other.parts for batch in part.read()]
    assert digests[0] == digests[1]
    found = pa.Table.from_batches(batches)
    assert found.schema.field("colour").type == CODED
    assert found.cast(plain.schema()).equals(table_of())


def test_of_several_files_a_column_comes_in_dictionaries_where_all_have_it_so(
    tmp_path: Path,
) -> None:
    written(tmp_path / "rows/a.parquet")
    written(tmp_path / "rows/b.parquet")
    folder = adapter(URI_READERS, "", what="the URI scheme")(None, tmp_path, "rows")
    assert folder.coded(NAMES).schema().field("colour").type == CODED
    division = Division(chunk_rows=7_000, part_rows=50_000)
    with folder.parts(division) as one, folder.coded(NAMES).parts(division) as other:
        digests = [[part.digest() for part in parts.parts] for parts in (one, other)]
    assert digests[0] == digests[1]
    written(tmp_path / "rows/c.parquet", use_dictionary=["id"])
    folder = adapter(URI_READERS, "", what="the URI scheme")(None, tmp_path, "rows")
    assert folder.coded(NAMES).schema() == folder.schema()
    with folder.coded(NAMES).read(chunk_rows=7_000) as batches:
        assert batches.read_all().num_rows == 3 * ROWS


def test_a_schema_leaves_text_in_its_dictionary() -> None:
    schema = FrameSchema((Column("colour", "string", nullable=True),))
    column = pa.array(["red", None, "red"]).dictionary_encode()
    assert schema.conform(pa.record_batch({"colour": column})).column(0).equals(column)


@pytest.mark.parametrize("kind", ["int", "float", "bool"])
def test_a_schema_takes_other_values_out_of_dictionaries(kind: str) -> None:
    schema = FrameSchema((Column("number", kind, nullable=False),))
    column = pa.array([1, 0, 1], pa.int64()).cast(ARROW_TYPES[kind]).dictionary_encode()
    conformed = schema.conform(pa.record_batch({"number": column})).column(0)
    assert conformed.type == ARROW_TYPES[kind]


def scorer() -> PyfuncWrapper:
    return artifact("xgboost.XGBClassifier", "classification", 2, (("n_estimators", 5),)).wrapper


def scored(wrapper: PyfuncWrapper, rows: SpineReader) -> ScoredPart:
    """All rows in one part, watched for drift."""
    columns = training_rows(400).select(["age", "country", "device"])
    reference = Reference.of(columns, {}, labels=True, importances={})
    plan = FramePlan("run", "digest", {"predictions": {}})
    with rows.read(chunk_rows=LEAST_ROWS) as batches:
        task = PartTask(0, 0, RowsAtHand(Batches(batches)))
        return RowScoring(compiled(wrapper), plan, reference)(task)


def test_rows_with_their_text_in_dictionaries_are_scored_and_counted_alike(tmp_path: Path) -> None:
    rows, wrapper = training_rows(3 * LEAST_ROWS), scorer()
    unseen = pc.if_else(pc.equal(rows["device"], "ios"), "new", rows["device"])
    rows = rows.set_column(rows.schema.get_field_index("device"), "device", unseen)
    pq.write_table(rows, tmp_path / "rows.parquet")
    plain = FileReader(tmp_path / "rows.parquet")
    coded = with_codes(plain, wrapper, ["predictions"])
    assert {field.name for field in coded.schema() if field.type == CODED} == {"country", "device"}
    one, other = (scored(wrapper, reader) for reader in (plain, coded))
    assert list(one.frames["predictions"]) == list(other.frames["predictions"])
    assert one.unknown == other.unknown
    assert one.unknown["device"] > 0
    assert one.watched is not None
    assert other.watched is not None
    assert one.watched.counted() == other.watched.counted()


def test_text_that_is_written_or_looked_at_as_it_is_comes_as_ever(tmp_path: Path) -> None:
    wrapper = scorer()
    pq.write_table(training_rows(400), tmp_path / "rows.parquet")
    plain = FileReader(tmp_path / "rows.parquet")
    assert with_codes(plain, wrapper, ["predictions", "augmented"]) is plain
    roles = replace(wrapper.contents.roles, carried=("device",))
    keyed = PyfuncWrapper(replace(wrapper.contents, roles=roles), wrapper.fitted)
    schema = with_codes(plain, keyed, ["predictions"]).schema()
    assert schema.field("device").type == pa.string()
    transformer = TransformerPreprocessor(FunctionTransformer())
    other = PyfuncWrapper(wrapper.contents, replace(wrapper.fitted, preprocessor=transformer))
    assert with_codes(plain, other, ["predictions"]) is plain
