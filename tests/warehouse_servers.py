"""The emulated warehouses, one of each for the whole suite."""

import os
from collections.abc import Iterator

import pytest
from tests.warehouses import (
    EmulatedBigQuery,
    EmulatedSnowflake,
    bigquery_emulator,
    snowflake_emulator,
)

__all__ = ["bigquery_server", "snowflake_server"]


@pytest.fixture(scope="session")
def snowflake_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedSnowflake]:
    # Its client would look for the metadata servers of three clouds at every login.
    os.environ["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"
    with snowflake_emulator(tmp_path_factory.mktemp("snowflake")) as server:
        yield server


@pytest.fixture(scope="session")
def bigquery_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedBigQuery]:
    with bigquery_emulator(tmp_path_factory.mktemp("bigquery")) as server:
        yield server
