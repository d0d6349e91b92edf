"""DynamoDB under the contracts of online stores and of their readers: boto3 against moto's server."""

from collections.abc import Iterator, Sequence
from uuid import uuid4

import pytest
import uvloop
from tests.dynamodb_places import section

from lodestar.adapters.dynamodb import DynamoDBOnlineStore
from lodestar.interface.features import OnlineReader, OnlineStore, SelectedFeatures
from lodestar.settings.dynamodb import DynamoDBStore
from lodestar.testing.online import CONTRACT_VIEWS, OnlineStoreContract
from lodestar.testing.online_reader import OnlineReaderContract

PLAIN = {"backups": False}


class TestDynamoDB(OnlineStoreContract):
    """Each test has tables of its own."""

    @pytest.fixture(autouse=True)
    def _server(self, dynamodb_url: str) -> Iterator[None]:
        self.url = dynamodb_url
        self.prefix = f"{uuid4().hex}."
        self.opened: list[DynamoDBOnlineStore] = []
        yield
        for store in self.opened:
            store.close()

    def config(self) -> DynamoDBStore:
        return section(self.url, table_prefix=self.prefix, tables=PLAIN)

    def store(self) -> DynamoDBOnlineStore:
        store = DynamoDBOnlineStore(self.config())
        self.opened.append(store)
        for view in CONTRACT_VIEWS:
            store.tables.require(view)
        return store

    def again(self, store: OnlineStore) -> OnlineStore:
        del store
        return self.store()


class TestDynamoDBInBatches(TestDynamoDB):
    def config(self) -> DynamoDBStore:
        return super().config().model_copy(update={"writes": "batch"})

    def test_writers_at_the_same_time_leave_the_newest_version(self) -> None:
        pytest.skip("BatchWriteItem takes no condition: writes: batch is for one writer at a time")


class TestDynamoDBReader(OnlineReaderContract):
    @pytest.fixture(autouse=True)
    def _server(self, dynamodb_url: str) -> None:
        self.config = section(dynamodb_url, table_prefix=f"{uuid4().hex}.", tables=PLAIN)

    def store(self) -> DynamoDBOnlineStore:
        store = DynamoDBOnlineStore(self.config)
        for view in CONTRACT_VIEWS:
            store.tables.require(view)
        return store

    def reader(self, store: OnlineStore, selection: Sequence[SelectedFeatures]) -> OnlineReader:
        assert isinstance(store, DynamoDBOnlineStore)
        return store.reader(selection)


class TestDynamoDBReaderOnUvloop(TestDynamoDBReader):
    loop_factory = staticmethod(uvloop.new_event_loop)
