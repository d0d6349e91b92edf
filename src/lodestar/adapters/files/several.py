"""Several files or objects as one source of rows, one after another, in the order of their names.

Folders named `column=value` are columns of the rows below them, as Hive and its heirs write them.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import unquote

import pyarrow as pa

from lodestar.adapters.threads.side_by_side import side_by_side
from lodestar.errors import DataError, SchemaError
from lodestar.interface.data import CodesText, SpineReader
from lodestar.interface.parts import Divided, Division, PartitionedReader, PartRows
from lodestar.schema import canonical_schema

__all__ = ["Member", "SeveralReader", "members_of"]

AT_ONCE = 8  # members that are looked into: in an object store that is mostly waiting
_NULL = "__HIVE_DEFAULT_PARTITION__"
Values = Mapping[str, int | str | None]


@dataclass(frozen=True)
class Member:
    """One of several: its name for people, what reads it, and the values of its folders' columns."""

    name: str
    reader: SpineReader
    values: Values


def members_of(readers: Mapping[str, SpineReader], below: int) -> list[Member]:
    """Name → reader, as members; names count from their `below`-th sign on.

    Raises:
        SchemaError: some lie in folders of other columns than the rest.
    """
    said = {name: _columns_in(name[below:]) for name in readers}
    first = next(iter(said))
    for name, columns in said.items():
        if list(columns) != list(said[first]):
            raise SchemaError(
                f"{name} lies in folders of the columns {', '.join(columns) or '(none)'}, and "
                f"{first} in those of {', '.join(said[first]) or '(none)'}",
                hint="write a pattern that means files of one layout",
            )
    whole = {
        column
        for column in said[first]
        if all(_is_whole(columns[column]) for columns in said.values())
    }
    return [
        Member(
            name,
            reader,
            {
                column: int(text) if text is not None and column in whole else text
                for column, text in said[name].items()
            },
        )
        for name, reader in readers.items()
    ]


class SeveralReader:
    """Reads its members in order; their columns must be the same, in whatever order each has them."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = tuple(members)

    def schema(self) -> pa.Schema:
        """The columns of the first, and those of its folders."""
        return self._completed(self._members[0].reader.schema())

    def coded(self, names: Collection[str]) -> "SeveralReader":
        """Columns that come as dictionaries in every member."""
        readers = [one.reader for one in self._members if isinstance(one.reader, CodesText)]
        if len(readers) < len(self._members):
            return self
        common = tuple(names)
        for reader in readers:
            schema = reader.coded(common).schema()
            common = tuple(
                name
                for name in common
                if name in schema.names and pa.types.is_dictionary(schema.field(name).type)
            )
        pairs = zip(self._members, readers, strict=True)
        return SeveralReader([replace(one, reader=own.coded(common)) for one, own in pairs])

    def _completed(self, own: pa.Schema) -> pa.Schema:
        first = self._members[0]
        added = [pa.field(name, self._kind(name)) for name in first.values]
        twice = sorted(set(own.names) & set(first.values))
        if twice:
            raise SchemaError(
                f"column {twice[0]!r} stands in {first.name} and in the name of its folder",
                hint="rename the folder, or leave the column out of the files",
            )
        return pa.schema([*own, *added])

    def read(self, *, chunk_rows: int) -> pa.RecordBatchReader:
        """Stream the rows, one member after another."""
        target = self.schema()

        def stream() -> Iterator[pa.RecordBatch]:
            for member in self._members:
                with (
                    _named(member),
                    member.reader.read(chunk_rows=chunk_rows) as batches,
                ):
                    _require_same(batches.schema, target, member, self._members[0])
                    for batch in batches:
                        yield _completed(batch, target, member.values)

        return pa.RecordBatchReader.from_batches(target, stream())

    @contextmanager
    def parts(self, division: Division) -> Iterator[Divided]:
        """The parts of all members; small neighbours make one part together."""
        with ExitStack() as stack:
            asked = [partial(_divided, member, division, stack) for member in self._members]
            found = side_by_side(asked, AT_ONCE, "parts")
            whole = next((one for one in found if one.parts is None), None)
            yield self._as_one(found, division) if whole is None else whole

    def _as_one(self, found: Sequence[Divided], division: Division) -> Divided:
        target = self._completed(found[0].schema)
        pieces: list[_Piece] = []
        for member, divided in zip(self._members, found, strict=True):
            _require_same(divided.schema, target, member, self._members[0])
            pieces += [_Piece(part, target, dict(member.values)) for part in divided.parts or ()]
        return Divided(list(_together(pieces, division.part_rows)))

    def _kind(self, column: str) -> pa.DataType:
        values = [member.values[column] for member in self._members]
        return pa.int64() if any(isinstance(value, int) for value in values) else pa.string()


@dataclass(frozen=True)
class _Piece:
    """A member's part, its columns put in order and those of its folders added."""

    part: PartRows
    target: pa.Schema
    values: Values

    @property
    def rows(self) -> int:
        return self.part.rows

    def digest(self) -> str:
        said = (
            f"{self.part.digest()}\0{canonical_schema(self.target)}\0{sorted(self.values.items())}"
        )
        return hashlib.sha256(said.encode()).hexdigest()

    def read(self) -> Iterator[pa.RecordBatch]:
        for batch in self.part.read():
            yield _completed(batch, self.target, self.values)


@dataclass(frozen=True)
class _Together:
    """Neighbours that are read one after another."""

    pieces: tuple[_Piece, ...]

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)

    def digest(self) -> str:
        said = "\0".join(piece.digest() for piece in self.pieces)
        return hashlib.sha256(said.encode()).hexdigest()

    def read(self) -> Iterator[pa.RecordBatch]:
        for piece in self.pieces:
            yield from piece.read()


def _together(pieces: Sequence[_Piece], part_rows: int) -> Iterator[PartRows]:
    gathered: list[_Piece] = []
    rows = 0
    for piece in pieces:
        if gathered and rows + piece.rows > part_rows:
            yield _Together(tuple(gathered))
            gathered, rows = [], 0
        gathered.append(piece)
        rows += piece.rows
    if gathered:
        yield _Together(tuple(gathered))


def _divided(member: Member, division: Division, stack: ExitStack) -> Divided:
    """A member's parts, which are there until the stack ends, and its columns."""
    if not isinstance(member.reader, PartitionedReader):
        return Divided(None)
    with _named(member):
        divided = stack.enter_context(member.reader.parts(division))
        if divided.parts is None or divided.schema is not None:
            return divided
        return replace(divided, schema=member.reader.schema())


@contextmanager
def _named(member: Member) -> Iterator[None]:
    """Say which of them an error is about that does not."""
    try:
        yield
    except DataError as error:
        if member.name in str(error):
            raise
        raise type(error)(error.what, where=member.name, hint=error.hint) from error


def _columns_in(name: str) -> dict[str, str | None]:
    """The columns that a member's folders are named for."""
    found: dict[str, str | None] = {}
    for folder in name.split("/")[:-1]:
        column, sign, value = folder.partition("=")
        if sign and column:
            found[unquote(column)] = None if value == _NULL else unquote(value)
    return found


def _is_whole(text: str | None) -> bool:
    return text is None or text.removeprefix("-").isdecimal()


def _require_same(given: pa.Schema, target: pa.Schema, member: Member, first: Member) -> None:
    own = {field.name: field.type for field in given}
    wanted = {field.name: field.type for field in target if field.name not in member.values}
    if own == wanted:
        return
    lines = [f"- {name}: missing" for name in wanted if name not in own]
    lines += [f"+ {name}: not in {first.name}" for name in own if name not in wanted]
    lines += [
        f"~ {name}: {own[name]}, {kind} in {first.name}"
        for name, kind in wanted.items()
        if name in own and own[name] != kind
    ]
    raise SchemaError(
        f"the columns of {member.name} are not those of {first.name}:\n  " + "\n  ".join(lines),
        hint="write a pattern that means files of one kind; parquet keeps types, csv guesses them",
    )


def _completed(batch: pa.RecordBatch, target: pa.Schema, values: Values) -> pa.RecordBatch:
    columns = [
        pa.repeat(pa.scalar(values[field.name], field.type), batch.num_rows)
        if field.name in values
        else batch.column(field.name)
        for field in target
    ]
    return pa.record_batch(columns, schema=target)
