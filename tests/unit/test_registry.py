import subprocess
import sys

import pytest

from lodestar.adapters.duckdb import DuckDBReader
from lodestar.adapters.files.rows import FileWriter
from lodestar.adapters.files.sets import reader as file_reader
from lodestar.adapters.registry import SQL_READERS, URI_READERS, WRITERS, adapter, scheme_of
from lodestar.errors import UsageError


def test_every_registered_class_can_be_imported() -> None:
    assert adapter(SQL_READERS, "duckdb", what="data.adapter").__self__ is DuckDBReader
    for name in ("", "file"):
        assert adapter(URI_READERS, name, what="the URI scheme") is file_reader
        assert adapter(WRITERS, name, what="the URI scheme").__self__ is FileWriter


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("data/x.parquet", ""),
        ("/data/x.parquet", ""),
        ("a:b.csv", ""),
        ("file:///data/x.parquet", "file"),
        ("s3://bucket/x.parquet", "s3"),
        ("S3://bucket/x.parquet", "s3"),
    ],
)
def test_a_uri_has_a_scheme_and_a_path_has_none(uri: str, scheme: str) -> None:
    assert scheme_of(uri) == scheme


def test_an_unknown_name_is_told_with_the_near_ones() -> None:
    with pytest.raises(UsageError, match=r"data\.adapter 'duckbd' is not supported") as caught:
        adapter(SQL_READERS, "duckbd", what="data.adapter")
    assert "did you mean 'duckdb'?" in str(caught.value)


def test_no_driver_is_loaded_before_it_is_chosen() -> None:
    script = (
        "import sys, lodestar.adapters.registry, lodestar.settings.loading\n"
        "heavy = {'duckdb', 'pyarrow', 'pandas', 'mlflow', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
