"""A preprocessor's columns as a compiled forest takes them: numbers to be scaled, and codes of text.

What comes of it is what comes of the preprocessor's matrix, to the bit, as the arithmetic is the same.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lodestar.core.preprocessor import Categorical, Numeric, SimpleScaler, plain_numbers
from lodestar.core.trees.bins import BinnedForest
from lodestar.core.trees.block_writer import BLOCK
from lodestar.core.trees.forest import NotPlannedError

__all__ = ["Codes", "Numbers", "RawColumns", "TakenColumns"]


@dataclass(frozen=True)
class Numbers:
    """The slots that are scaled numbers: which column each is of, and how it is scaled."""

    slots: NDArray[np.int64]
    columns: NDArray[np.int64]
    means: NDArray[np.float64]
    scales: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True)
class Codes:
    """The slots that are 1 where a column's code is their `own`: their bins there, and elsewhere."""

    slots: NDArray[np.int64]
    columns: NDArray[np.int64]
    own: NDArray[np.unsignedinteger[Any]]
    bins_of_one: NDArray[np.unsignedinteger[Any]]
    bins_of_zero: NDArray[np.unsignedinteger[Any]]

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True)
class TakenColumns:
    """The columns of some rows; `unknown` counts, per column, categories that training had not seen."""

    columns: tuple[NDArray[Any], ...]
    unknown: dict[str, int]

    def addresses(self, first: int) -> NDArray[np.int64]:
        """Where each column's row `first` lies."""
        return np.array([one[first:].ctypes.data for one in self.columns], np.int64)

    def end(self, first: int) -> "TakenColumns":
        """The rows from `first` on, and zeros behind them up to a whole block."""
        padded = [np.zeros(BLOCK, one.dtype) for one in self.columns]
        for kept, one in zip(padded, self.columns, strict=True):
            kept[: len(one) - first] = one[first:]
        return TakenColumns(tuple(padded), {})


@dataclass(frozen=True)
class RawColumns:
    """Which columns are taken of rows, and what a forest's slots are of them.

    First the numeric columns that the forest compares, then all others that are categories. `unused`
    numbers are only looked at, as one that is too large is refused.
    """

    used: tuple[Numeric, ...]
    unused: tuple[Numeric, ...]
    categories: tuple[Categorical, ...]
    numbers: Numbers
    codes: Codes
    dtype: type[np.floating[Any]]

    @classmethod
    def of(
        cls, scaler: SimpleScaler, binned: BinnedForest, dtype: type[np.floating[Any]]
    ) -> "RawColumns":
        """Take a fitted scaler apart, which would be asked for features of this `dtype`.

        Raises:
            NotPlannedError: it scales by groups.
        """
        if scaler.criterion_col is not None:
            raise NotPlannedError("numbers are scaled by groups")
        made = [(column, own) for column in scaler.columns for own in range(column.width)]
        compared = [made[place] for place in binned.columns]
        used = tuple(one for one, _ in compared if isinstance(one, Numeric))
        names = {one.name for one in used}
        numeric = [one for one in scaler.columns if isinstance(one, Numeric)]
        categories = tuple(one for one in scaler.columns if isinstance(one, Categorical))
        texts = {one.name: len(used) + at for at, one in enumerate(categories)}
        slots = np.array([isinstance(one, Numeric) for one, _ in compared], np.bool_)
        coded = [(texts[one.name], own) for one, own in compared if one.name in texts]
        most = max((one.width for one in categories), default=0)
        numbers = Numbers(
            slots=np.flatnonzero(slots),
            columns=np.arange(len(used)),
            means=np.array([one.mean[-1] for one in used], np.float64),
            scales=np.array([one.scale[-1] for one in used], np.float64),
        )
        codes = Codes(
            slots=np.flatnonzero(~slots),
            columns=np.array([column for column, _ in coded], np.int64),
            own=np.array([own for _, own in coded], np.min_scalar_type(most)),
            bins_of_one=_bins(binned, ~slots, 1.0),
            bins_of_zero=_bins(binned, ~slots, 0.0),
        )
        unused = tuple(one for one in numeric if one.name not in names)
        return cls(used, unused, categories, numbers, codes, dtype)

    def taken(self, rows: pa.Table | pa.RecordBatch) -> TakenColumns:
        """The columns of rows; numbers are not copied where they are float64 and none is null.

        Raises:
            DataError: a number that no tree asks for is too large to be scaled.
        """
        for column in self.unused:
            column.scale_into(np.empty(rows.num_rows, self.dtype), rows.column(column.name), None)
        columns: list[NDArray[Any]] = []
        for column in self.used:
            numbers = plain_numbers(rows.column(column.name))
            columns.append(np.ascontiguousarray(numbers, np.float64))
        unknown: dict[str, int] = {}
        for text in self.categories:
            codes, strange = _codes(text, rows.column(text.name))
            columns.append(codes.astype(self.codes.own.dtype, copy=False))
            if strange:
                unknown[text.name] = strange
        return TakenColumns(tuple(columns), unknown)


def _codes(
    text: Categorical, values: pa.Array | pa.ChunkedArray
) -> tuple[NDArray[np.unsignedinteger[Any]], int]:
    """As `Categorical.codes`, but each text of a dictionary is looked up once."""
    if not isinstance(values, pa.DictionaryArray) or values.dictionary.null_count:
        return text.codes(values)
    known, strange = text.codes(values.dictionary)
    table = np.append(known, known.dtype.type(text.width - 2))
    places = values.indices.fill_null(len(known)).to_numpy()
    if strange:
        seen = pc.is_in(values.dictionary, value_set=text.known).to_numpy(zero_copy_only=False)
        strange = int(np.count_nonzero(~np.append(seen, True)[places]))
    return table[places], strange


def _bins(
    binned: BinnedForest, slots: NDArray[np.bool_], value: float
) -> NDArray[np.unsignedinteger[Any]]:
    """The bin of a value in each of some slots."""
    side: Literal["left", "right"] = "right" if binned.forest.strict else "left"
    found = [
        np.searchsorted(binned.cuts[start : start + 2**step - 1], value, side=side)
        for start, step in zip(binned.starts[slots], binned.steps[slots], strict=True)
    ]
    return np.array(found, binned.cut.dtype)
