"""What a server refuses is told by its number and by its words, where one of them is not enough."""

import pytest
from snowflake.connector.errors import ProgrammingError

from lodestar.adapters.snowflake.errors import AlreadyExistsError, driver_failed
from lodestar.errors import DataError


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("SQL compilation error:\nObject 'SCORES' already exists.", AlreadyExistsError),
        ("Resource In Use Error: connection is busy with another call", DataError),
    ],
)
def test_only_what_is_there_already_exists(words: str, kind: type[DataError]) -> None:
    told = driver_failed(ProgrammingError(msg=words, errno=2002, sqlstate="42710"), timeout=30)
    assert type(told) is kind
    assert words.rpartition("\n")[2] in str(told)
