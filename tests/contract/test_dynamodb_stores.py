"""DynamoDB under the contracts of online stores and of their readers: boto3 against moto's server."""

from collections.abc import Iterator, Sequence
from random import randrange
from typing import Any
from uuid import uuid4

import pytest
import uvloop
from tests.dynamodb_places import client_of, make_tables, section

from lodestar.adapters.dynamodb import DynamoDBOnlineStore
from lodestar.interface.features import OnlineReader, OnlineStore, SelectedFeatures
from lodestar.settings.dynamodb import DynamoDBStore
from lodestar.testing.online import CONTRACT_VIEWS, OnlineStoreContract
from lodestar.testing.online_reader import OnlineReaderContract


@pytest.fixture(scope="module")
def client(dynamodb_url: str) -> Any:  # noqa: ANN401 -- boto3's own
    return client_of(dynamodb_url)


@pytest.fixture
def config(dynamodb_url: str, client: Any) -> DynamoDBStore:  # noqa: ANN401 -- as above
    """Tables of a test's own."""
    prefix = f"{uuid4().hex}."
    make_tables(client, prefix, CONTRACT_VIEWS)
    return section(dynamodb_url, table_prefix=prefix)


class TestDynamoDB(OnlineStoreContract):
    writes = "conditional"

    @pytest.fixture(autouse=True)
    def _opened(self, config: DynamoDBStore) -> Iterator[None]:
        self.config = config.model_copy(update={"writes": self.writes})
        self.opened: list[DynamoDBOnlineStore] = []
        yield
        for store in self.opened:
            store.close()

    def store(self) -> DynamoDBOnlineStore:
        store = DynamoDBOnlineStore(self.config)
        self.opened.append(store)
        return store

    def again(self, store: OnlineStore) -> OnlineStore:
        """Another store with a client of its own; there are four of them, as making one costs much."""
        others = [one for one in self.opened if one is not store]
        return others[randrange(4)] if len(others) >= 4 else self.store()  # noqa: S311 -- any of them


@pytest.mark.faults  # nearly as long again
class TestDynamoDBInBatches(TestDynamoDB):
    writes = "batch"

    def test_writers_at_the_same_time_leave_the_newest_version(self) -> None:
        pytest.skip("BatchWriteItem takes no condition: writes: batch is for one writer at a time")


class TestDynamoDBReader(OnlineReaderContract):
    @pytest.fixture(autouse=True)
    def _config(self, config: DynamoDBStore) -> None:
        self.config = config.model_copy(update={"writes": "batch"})

    def store(self) -> DynamoDBOnlineStore:
        return DynamoDBOnlineStore(self.config)

    def reader(self, store: OnlineStore, selection: Sequence[SelectedFeatures]) -> OnlineReader:
        assert isinstance(store, DynamoDBOnlineStore)
        return store.reader(selection)


@pytest.mark.faults  # the loop does little here: the requests are made in threads
class TestDynamoDBReaderOnUvloop(TestDynamoDBReader):
    loop_factory = staticmethod(uvloop.new_event_loop)
