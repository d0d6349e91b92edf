"""Four small real tables, from the files that scikit-learn carries: they need no network."""

import re
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lodestar.errors import ExternalError

__all__ = ["export_bundled", "named", "numbered", "write_parquet"]

ROWS_PER_GROUP = 131_072


def export_bundled(root: Path) -> list[Path]:
    """Write breast_cancer, digits, wine and diabetes as `root/<name>.parquet`.

    The same installed libraries write the same bytes. Each file is complete or absent.

    Raises:
        ExternalError: The folder cannot be written.
    """
    tables = {
        "breast_cancer": _breast_cancer(),
        "digits": _digits(),
        "wine": _wine(),
        "diabetes": _diabetes(),
    }
    return [write_parquet(table, root / f"{name}.parquet") for name, table in tables.items()]


def write_parquet(table: pa.Table, path: Path) -> Path:
    """Publish a table atomically: a reader sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, temporary, row_group_size=ROWS_PER_GROUP, compression="zstd")
        temporary.replace(path)
    except OSError as exc:
        raise ExternalError(
            f"cannot write the sample table: {exc.strerror or exc}",
            where=str(path),
            hint="the folder must be writable and have space left",
        ) from exc
    finally:
        temporary.unlink(missing_ok=True)
    return path


def numbered(prefix: str, count: int, *, width: int) -> pa.Array:
    """Ids from 1 on, such as "bc-0001"."""
    numbers = pc.utf8_lpad(pa.array(np.arange(1, count + 1)).cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, numbers, "-")


def named(codes: npt.NDArray[np.int64], names: Sequence[str]) -> pa.Array:
    """The name that each code stands for."""
    return pa.array([str(name) for name in names]).take(pa.array(codes))


def _breast_cancer() -> pa.Table:
    """569 biopsies, 30 measurements of the cell nuclei each (Wisconsin, diagnostic)."""
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    return pa.table(
        {
            "sample_id": numbered("bc", len(bunch.target), width=4),
            **_columns(bunch.data, [_snake_case(name) for name in bunch.feature_names]),
            "diagnosis": named(bunch.target, bunch.target_names),
        }
    )


def _digits() -> pa.Table:
    """1,797 handwritten digits of 8 by 8 pixels, each 0 (paper) to 16 (ink)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return pa.table(
        {
            "image_id": numbered("img", len(bunch.target), width=4),
            **_columns(bunch.data.astype(np.int64), list(bunch.feature_names)),
            "digit": pa.array(bunch.target.astype(np.int64)),
        }
    )


def _wine() -> pa.Table:
    """178 Italian wines of three cultivars, 13 chemical measurements each."""
    from sklearn.datasets import load_wine

    bunch = load_wine()
    return pa.table(
        {
            "sample_id": numbered("wine", len(bunch.target), width=3),
            **_columns(bunch.data, [_snake_case(name) for name in bunch.feature_names]),
            "cultivar": named(bunch.target, ["cultivar_1", "cultivar_2", "cultivar_3"]),
        }
    )


# scikit-learn's s1 to s6, by what its description says that they are.
DIABETES_NAMES = {
    "s1": "total_cholesterol",
    "s2": "ldl",
    "s3": "hdl",
    "s4": "cholesterol_hdl_ratio",
    "s5": "log_triglycerides",
    "s6": "glucose",
    "bp": "blood_pressure",
}


def _diabetes() -> pa.Table:
    """442 patients in their original units, and the disease's progression one year later."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    names = [DIABETES_NAMES.get(name, name) for name in bunch.feature_names]
    return pa.table(
        {
            "patient_id": numbered("pt", len(bunch.target), width=3),
            **_columns(bunch.data, names),
            "progression": pa.array(bunch.target.astype(np.float64)),
        }
    )


def _columns(matrix: npt.NDArray[np.float64], names: list[str]) -> dict[str, pa.Array]:
    return {
        name: pa.array(np.ascontiguousarray(matrix[:, position]))
        for position, name in enumerate(names)
    }


def _snake_case(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
