"""DynamoDB under the contracts of online stores and of their readers: boto3 against moto's server."""

from collections.abc import Iterator, Sequence
from random import randrange
from typing import Any
from uuid import uuid4

import pytest
import uvloop
from tests.dynamodb_places import client_of, make_tables, section

from lodestar.adapters.dynamodb.provider import DynamoDBOnlineStore
from lodestar.adapters.feast.config import TABLE_TEMPLATE
from lodestar.adapters.feast.dynamodb import FeastDynamoDBStore, FeastItems
from lodestar.interface.features import OnlineReader, OnlineStore, SelectedFeatures
from lodestar.settings.dynamodb import DynamoDBStore
from lodestar.testing.online import CONTRACT_VIEWS, OnlineStoreContract
from lodestar.testing.online_reader import OnlineReaderContract

# A request reads 100 and writes 25; moto takes several milliseconds for each.
MANY = 230


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
    many = MANY

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


class TestFeastOverDynamoDB(OnlineStoreContract):
    """Feast's layout, read and written by our own client; each test is a Feast project of its own."""

    many = MANY

    @pytest.fixture(autouse=True)
    def _opened(self, dynamodb_url: str, client: Any) -> Iterator[None]:  # noqa: ANN401 -- boto3's own
        self.project = f"p{uuid4().hex}"
        make_tables(client, f"{self.project}.", CONTRACT_VIEWS, FeastItems.key)
        self.config = section(dynamodb_url)
        self.opened: list[FeastDynamoDBStore] = []
        yield
        for store in self.opened:
            store.close()

    def store(self) -> FeastDynamoDBStore:
        store = FeastDynamoDBStore(self.config, TABLE_TEMPLATE, self.project)
        self.opened.append(store)
        return store

    def again(self, store: OnlineStore) -> OnlineStore:
        others = [one for one in self.opened if one is not store]
        return others[randrange(4)] if len(others) >= 4 else self.store()  # noqa: S311 -- any of them


@pytest.mark.faults  # the reader is the same, the layout is under the contract above
class TestFeastOverDynamoDBReader(OnlineReaderContract):
    @pytest.fixture(autouse=True)
    def _config(self, dynamodb_url: str, client: Any) -> None:  # noqa: ANN401 -- boto3's own
        self.project = f"p{uuid4().hex}"
        make_tables(client, f"{self.project}.", CONTRACT_VIEWS, FeastItems.key)
        self.config = section(dynamodb_url, writes="batch")

    def store(self) -> FeastDynamoDBStore:
        return FeastDynamoDBStore(self.config, TABLE_TEMPLATE, self.project)

    def reader(self, store: OnlineStore, selection: Sequence[SelectedFeatures]) -> OnlineReader:
        assert isinstance(store, FeastDynamoDBStore)
        return store.reader(selection)


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
