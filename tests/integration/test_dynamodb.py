"""DynamoDB beside the contract: tables and their options, items as they lie there, what is refused."""

import asyncio
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from tests.dynamodb_places import (
    KEY,
    SECRET,
    Scripted,
    client_of,
    refusal,
    scripted,
    section,
)

from lodestar.adapters.dynamodb.provider import DynamoDBOnlineStore
from lodestar.adapters.dynamodb.tables import DeclaredTables
from lodestar.errors import DataError, ExternalError, NotAllowedError, UsageError
from lodestar.interface.features import SelectedFeatures
from lodestar.settings.features import FeatureView
from lodestar.testing.online import every_feature_of, stored_rows

NOON = datetime(2025, 3, 30, 12, tzinfo=UTC)
MICROS = int(NOON.timestamp()) * 1_000_000
USERS = FeatureView.model_validate(
    {
        "namespace": "users",
        "entity_keys": {"user_id": "string"},
        "source": {"table": "users", "created_col": "created"},
        "ttl": "2d",
        "features": {"age": "int", "ltv": "float", "country": "string", "active": "bool"},
    }
)
OTHERS = FeatureView.model_validate(
    {
        "namespace": "others",
        "entity_keys": {"user_id": "string"},
        "source": {"table": "others"},
        "features": {"size": "int"},
    }
)
ROW = {"user_id": "a:b", "at": NOON, "created": NOON, "age": 34, "ltv": 0.1, "active": True}
SELECTION = every_feature_of(USERS)


@dataclass
class Place:
    """A store whose requests can be answered by the test, with a prefix of its own."""

    server: Scripted
    prefix: str
    client: Any

    @property
    def table(self) -> str:
        return f"{self.prefix}users"

    def store(self, **values: Any) -> DynamoDBOnlineStore:  # noqa: ANN401 -- of the section
        return DynamoDBOnlineStore(section(self.server.url, table_prefix=self.prefix, **values))

    def kept(self, **values: Any) -> DynamoDBOnlineStore:  # noqa: ANN401 -- as above
        store = self.store(tables={"backups": False}, **values)
        assert store.write(USERS, iter([stored_rows(USERS, [ROW])])) == 1
        return store


@pytest.fixture(scope="module")
def client(dynamodb_url: str) -> Any:  # noqa: ANN401 -- boto3's own
    return client_of(dynamodb_url)


@pytest.fixture
def place(dynamodb_url: str, client: Any) -> Iterator[Place]:  # noqa: ANN401 -- as above
    with scripted(dynamodb_url) as server:
        yield Place(server, f"{uuid4().hex}.", client)


def ages(store: DynamoDBOnlineStore, *users: str) -> list[int | None]:
    rows = store.read(pa.record_batch({"user_id": list(users)}), SELECTION)
    return list(rows.features.column("age").to_pylist())


@contextmanager
def refused(kind: type[Exception], *words: str) -> Iterator[None]:
    """Our error with these words, and no key in it or below it."""
    with pytest.raises(kind) as caught:
        yield
    said = "".join(traceback.format_exception(caught.value))
    for secret in (SECRET, KEY, "a-session-token"):
        assert secret not in said
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_items_can_be_read_by_a_person(place: Place) -> None:
    store = place.kept()
    store.set_watermark(USERS, NOON)
    found = {
        item["@entity"]["S"]: item for item in place.client.scan(TableName=place.table)["Items"]
    }
    assert found == {
        "a%3Ab": {
            "@entity": {"S": "a%3Ab"},
            "@event": {"N": str(MICROS)},
            "@created": {"N": str(MICROS)},
            "age": {"N": "34"},
            "ltv": {"S": "0.1"},
            "country": {"NULL": True},
            "active": {"BOOL": True},
        },
        "%watermark": {
            "@entity": {"S": "%watermark"},
            "@watermark": {
                "S": f"{MICROS} active:bool age:int country:string ltv:float user_id:string"
            },
        },
    }


def test_a_table_is_made_as_the_config_says(place: Place) -> None:
    tables = {
        "billing": "provisioned",
        "read_units": 7,
        "write_units": 3,
        "backup_days": 9,
        "expires": "@expires",
        "deletion_protection": True,
        "kms_key": "alias/shop",
        "tags": {"team": "growth"},
    }
    store = place.store(tables=tables)
    store.write(USERS, iter([stored_rows(USERS, [ROW])]))
    made = place.client.describe_table(TableName=place.table)["Table"]
    assert made["ProvisionedThroughput"]["ReadCapacityUnits"] == 7
    assert made["ProvisionedThroughput"]["WriteCapacityUnits"] == 3
    assert made["DeletionProtectionEnabled"] is True
    assert made["SSEDescription"]["SSEType"] == "KMS"
    tags = place.client.list_tags_of_resource(ResourceArn=made["TableArn"])["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {
        "managed_by": "lodestar",
        "team": "growth",
    }
    backups = place.client.describe_continuous_backups(TableName=place.table)
    said = backups["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]
    assert said["PointInTimeRecoveryStatus"] == "ENABLED"
    expires = place.client.describe_time_to_live(TableName=place.table)["TimeToLiveDescription"]
    assert (expires["TimeToLiveStatus"], expires["AttributeName"]) == ("ENABLED", "@expires")
    (item,) = place.client.scan(TableName=place.table)["Items"]
    ends = NOON + timedelta(days=2, seconds=1)
    assert item["@expires"] == {"N": str(int(ends.timestamp()))}


def test_applying_shows_what_is_missing_and_does_it_once(place: Place) -> None:
    declared = DeclaredTables(place.store().tables, [USERS])
    changes = declared.diff()
    assert changes.lines == (f"+ {place.table}: new, on demand, backups of 35 days",)
    declared.apply(changes)
    assert DeclaredTables(place.store().tables, [USERS]).diff().items == ()
    with pytest.raises(UsageError, match="have changed since"):
        declared.apply(changes)


def test_what_was_left_off_when_making_a_table_broke_off_is_turned_on_by_the_next(
    place: Place,
) -> None:
    place.server.script = lambda operation, request: (
        refusal("AccessDeniedException") if operation == "UpdateContinuousBackups" else None
    )
    with refused(ExternalError, "does not allow UpdateContinuousBackups", place.table):
        place.store().write(USERS, iter([stored_rows(USERS, [ROW])]))
    place.server.script = lambda operation, request: None
    declared = DeclaredTables(place.store().tables, [USERS])
    assert declared.diff().lines == (f"~ {place.table}: backups of 35 days, were off",)
    declared.apply(declared.diff())
    assert declared.diff().items == ()


def test_a_table_that_may_not_be_made_is_refused_with_what_it_should_be(place: Place) -> None:
    store = place.store(tables={"create": False})
    words = ("there is no table", place.table, "partition key @entity", "create: true")
    with refused(NotAllowedError, *words):
        store.write(USERS, iter([stored_rows(USERS, [ROW])]))
    with refused(NotAllowedError, *words):
        DeclaredTables(store.tables, [USERS]).diff()
    with refused(ExternalError, "there is no table", place.table):
        store.watermark(USERS)
    assert "CreateTable" not in place.server.asked


def test_a_table_with_another_key_is_not_written_to(place: Place) -> None:
    place.client.create_table(
        TableName=place.table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    with refused(UsageError, place.table, "keyed by id (N)", "table_prefix"):
        place.store().write(USERS, iter([stored_rows(USERS, [ROW])]))


def test_a_missing_table_was_never_materialised_and_is_an_error_when_read(place: Place) -> None:
    store = place.store()
    assert store.watermark(USERS) is None
    with refused(ExternalError, "there is no table", place.table, "is the region right"):
        ages(store, "a:b")


def test_a_region_that_does_not_hold_the_tables_is_named(place: Place) -> None:
    place.kept()
    with refused(ExternalError, "there is no table", "us-east-2", "is the region right"):
        ages(place.store(region="us-east-2"), "a:b")


def test_an_emptied_table_knows_nobody_and_has_no_watermark(place: Place) -> None:
    store = place.kept()
    store.set_watermark(USERS, NOON)
    for name in ("a%3Ab", "%watermark"):
        place.client.delete_item(TableName=place.table, Key={"@entity": {"S": name}})
    rows = store.read(pa.record_batch({"user_id": ["a:b"]}), SELECTION)
    assert rows.event_times["users"].to_pylist() == [None]
    assert store.watermark(USERS) is None


def test_an_entity_with_a_value_gone_is_unknown_and_no_half_row(place: Place) -> None:
    store = place.kept()
    place.client.update_item(
        TableName=place.table, Key={"@entity": {"S": "a%3Ab"}}, UpdateExpression="REMOVE ltv"
    )
    rows = store.read(pa.record_batch({"user_id": ["a:b"]}), SELECTION)
    assert set(rows.features.to_pylist()[0].values()) == {None}
    assert rows.event_times["users"].to_pylist() == [None]


@pytest.mark.parametrize(
    "value", [{"S": "34"}, {"N": "1.5"}, {"N": "99999999999999999999999"}, {"BOOL": True}]
)
def test_a_value_of_another_type_is_an_error_that_names_the_namespace(
    place: Place, value: dict[str, Any]
) -> None:
    store = place.kept()
    place.client.update_item(
        TableName=place.table,
        Key={"@entity": {"S": "a%3Ab"}},
        UpdateExpression="SET age = :v",
        ExpressionAttributeValues={":v": value},
    )
    with pytest.raises(DataError, match="users"):
        ages(store, "a:b")


def test_a_reader_takes_a_value_of_another_type_for_unknown_in_its_namespace_and_says_it_once(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    store = place.kept()
    store.write(USERS, iter([stored_rows(USERS, [{**ROW, "user_id": "c"}])]))
    store.write(OTHERS, iter([stored_rows(OTHERS, [{"user_id": "a:b", "at": NOON, "size": 5}])]))
    place.client.update_item(
        TableName=place.table,
        Key={"@entity": {"S": "a%3Ab"}},
        UpdateExpression="SET age = :v",
        ExpressionAttributeValues={":v": {"S": "thirty"}},
    )
    reader = store.reader([SelectedFeatures(USERS, ("age",)), SelectedFeatures(OTHERS, ("size",))])

    async def read() -> list[tuple[Any, ...]]:
        await reader.read([("a:b",)])
        found = await reader.read([("a:b",), ("c",)])
        await reader.close()
        return found

    found = asyncio.run(read())
    assert found == [(None, None, MICROS, 5), (MICROS, 34, None, None)]
    (said,) = [one.getMessage() for one in caplog.records if "declared type" in one.getMessage()]
    assert "users" in said


def test_a_missing_table_among_others_is_told_as_one_of_them(place: Place) -> None:
    store = place.kept()
    selection = every_feature_of(USERS, OTHERS)
    with refused(ExternalError, "at least one of the tables", f"{place.prefix}others"):
        store.read(pa.record_batch({"user_id": ["a:b"]}), selection)


@pytest.mark.parametrize("writes", ["conditional", "batch"])
def test_an_item_larger_than_dynamodb_takes_is_named_before_it_is_sent(
    place: Place, writes: str
) -> None:
    store = place.kept(writes=writes)
    large = {**ROW, "user_id": "large", "country": "ü" * 205_000}
    place.server.asked.clear()
    with refused(DataError, "users", "'large'", "400 KB", "country"):
        store.write(USERS, iter([stored_rows(USERS, [large])]))
    fits = {**ROW, "user_id": "fits", "country": "x" * 400_000}
    assert store.write(USERS, iter([stored_rows(USERS, [fits])])) == 1
    assert ages(store, "fits", "large") == [34, None]


def test_a_key_longer_than_dynamodb_takes_is_refused_when_written_and_nobody_when_read(
    place: Place,
) -> None:
    store = place.kept()
    long = "k" * 2049
    with refused(DataError, "2,048"):
        store.write(USERS, iter([stored_rows(USERS, [{**ROW, "user_id": long}])]))
    assert ages(store, "a:b", long, long[1:]) == [34, None, None]


@pytest.mark.parametrize("writes", ["conditional", "batch"])
def test_newer_versions_stay_however_rows_are_written(place: Place, writes: str) -> None:
    store = place.kept(writes=writes)
    older = {**ROW, "at": NOON - timedelta(microseconds=1), "age": 1}
    assert store.write(USERS, iter([stored_rows(USERS, [older])])) == 0
    later = {**ROW, "created": NOON + timedelta(microseconds=1), "age": 35}
    assert store.write(USERS, iter([stored_rows(USERS, [later])])) == 1
    assert ages(store, "a:b") == [35]


def test_keys_that_were_left_unprocessed_are_asked_for_again(place: Place) -> None:
    store = place.kept()
    rows = [{**ROW, "user_id": f"u{n}", "age": n} for n in range(250)]
    assert store.write(USERS, iter([stored_rows(USERS, rows)])) == 250
    left: list[int] = []

    def some_at_a_time(operation: str, request: dict[str, Any]) -> tuple[int, Any] | None:
        asked = request["RequestItems"][place.table]
        if len(asked["Keys"]) <= 40:
            return None
        left.append(len(asked["Keys"]))
        part = {**asked, "Keys": asked["Keys"][:40]}
        answer = place.client.batch_get_item(RequestItems={place.table: part})
        rest = {**asked, "Keys": asked["Keys"][40:]}
        return 200, {
            "Responses": answer["Responses"],
            "UnprocessedKeys": {place.table: rest},
        }

    place.server.script = some_at_a_time
    assert ages(store, *(f"u{n}" for n in range(250))) == list(range(250))
    assert len(left) >= 4  # the injector fired


def test_items_that_were_left_unprocessed_are_written_again(place: Place) -> None:
    store = place.kept(writes="batch")
    refusals: list[int] = []

    def none_at_first(operation: str, request: dict[str, Any]) -> tuple[int, Any] | None:
        if operation != "BatchWriteItem" or len(refusals) >= 3:
            return None
        refusals.append(1)
        return 200, {"UnprocessedItems": request["RequestItems"]}

    place.server.script = none_at_first
    rows = [{**ROW, "user_id": f"u{n}", "age": n} for n in range(60)]
    assert store.write(USERS, iter([stored_rows(USERS, rows)])) == 60
    assert len(refusals) == 3
    assert ages(store, *(f"u{n}" for n in range(60))) == list(range(60))


@pytest.mark.parametrize("code", ["ProvisionedThroughputExceededException", "ThrottlingException"])
def test_throttling_is_waited_for_and_bounded_by_the_deadline(place: Place, code: str) -> None:
    store = place.kept()
    place.server.asked.clear()
    place.server.script = lambda operation, request: (
        refusal(code) if len(place.server.asked) < 4 else None
    )
    assert ages(store, "a:b") == [34]
    assert place.server.asked == ["BatchGetItem"] * 4
    place.server.script = lambda operation, request: refusal(code)
    hurried = place.store(timeout=2.0)
    with refused(ExternalError, "throttles BatchGetItem", place.table, "more capacity"):
        ages(hurried, "a:b")
    assert 4 + 1 < len(place.server.asked) < 4 + 20


def test_a_write_that_is_throttled_is_tried_for_longer_than_a_read(place: Place) -> None:
    store = place.kept(timeout=2.0, write_timeout=30.0)
    place.server.asked.clear()
    ends = time.monotonic() + 2.5  # later than a read would be given up
    place.server.script = lambda operation, request: (
        refusal("ProvisionedThroughputExceededException")
        if operation == "PutItem" and time.monotonic() < ends
        else None
    )
    newer = {**ROW, "at": NOON + timedelta(days=1), "age": 35}
    assert store.write(USERS, iter([stored_rows(USERS, [newer])])) == 1
    assert time.monotonic() >= ends


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AccessDeniedException", ("does not allow BatchGetItem", "allow dynamodb:BatchGetItem")),
        ("UnrecognizedClientException", ("refuses the credentials",)),
        ("InvalidSignatureException", ("refuses the credentials",)),
        ("ExpiredTokenException", ("have expired", "log in again")),
        ("ValidationException", ("refuses BatchGetItem", "ValidationException")),
        ("SomethingNewException", ("refuses BatchGetItem", "SomethingNewException")),
    ],
)
def test_a_refusal_is_said_in_our_words_and_never_with_what_the_server_repeats(
    place: Place, code: str, words: Sequence[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    store = place.store(session_token="a-session-token")  # noqa: S106 -- a test's own
    repeated = f"The canonical string should have been {KEY} {SECRET} a-session-token"
    place.server.script = lambda operation, request: refusal(code, repeated)
    with refused(ExternalError, *words, "eu-central-1"):
        ages(store, "a:b")
    said = caplog.text + repr(store.__dict__) + repr(section(place.server.url))
    for secret in (SECRET, "a-session-token"):
        assert secret not in said


def test_what_a_validation_says_is_shown_where_it_holds_no_secret(place: Place) -> None:
    place.server.script = lambda operation, request: refusal("ValidationException", "too many keys")
    with refused(ExternalError, "(too many keys)"):
        ages(place.store(), "a:b")


def test_an_answer_that_was_damaged_on_its_way_is_asked_for_once_more_and_then_an_error(
    place: Place,
) -> None:
    store = place.kept()
    place.server.asked.clear()
    place.server.headers["x-amz-crc32"] = "12345"
    with refused(ExternalError, "broke off in the middle"):
        ages(store, "a:b")
    assert place.server.asked == ["BatchGetItem"] * 2


@pytest.mark.parametrize("answer", [b"<html>no such page</html>", b"", b"{"])
@pytest.mark.parametrize("status", [200, 404])
def test_a_server_that_is_no_dynamodb_is_said(place: Place, status: int, answer: bytes) -> None:
    place.server.script = lambda operation, request: (status, answer)
    place.server.request_id = False
    store = place.store(timeout=1.0)
    with refused(ExternalError, "DynamoDB"):
        ages(store, "a:b")
    with refused(ExternalError, "DynamoDB"):
        store.set_watermark(USERS, NOON)


def test_a_dynamodb_that_is_not_there_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    store = DynamoDBOnlineStore(section(url, timeout=2.0))
    with refused(ExternalError, url, "cannot be reached"):
        ages(store, "a")
    with refused(ExternalError, url, "cannot be reached"):
        store.write(USERS, iter([stored_rows(USERS, [ROW])]))
    with refused(ExternalError, url, "cannot be reached"):
        store.watermark(USERS)


def test_a_region_that_is_none_is_named_with_the_near_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    store = DynamoDBOnlineStore(section(url, region="eu-centrl-1", timeout=20.0))
    with refused(ExternalError, "eu-centrl-1", "eu-central-1"):
        ages(store, "a")


def test_no_credentials_anywhere_is_said_with_where_they_may_come_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/no/such/file")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/no/such/file")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    chain = {"access_key_id": None, "secret_access_key": None}
    with refused(ExternalError, "no AWS credentials", "environment", "role"):
        ages(DynamoDBOnlineStore(section("http://127.0.0.1:9", **chain)), "a")
    with refused(UsageError, "no AWS profile 'shop'"):
        ages(DynamoDBOnlineStore(section("http://127.0.0.1:9", **chain, profile="shop")), "a")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with refused(UsageError, "needs a region", "feature_store.dynamodb.region"):
        ages(DynamoDBOnlineStore(section("http://127.0.0.1:9", region=None)), "a")


def test_keys_of_the_environment_are_used_where_the_config_names_none(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.kept()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "FROMTHEENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    store = place.store(access_key_id=None, secret_access_key=None)
    assert ages(store, "a:b") == [34]


def test_a_driver_that_is_missing_names_its_extra() -> None:
    code = (
        "import sys\n"
        "sys.modules['boto3'] = None\n"
        "from lodestar.adapters.dynamodb.provider import DynamoDBOnlineStore\n"
        "from lodestar.settings.dynamodb import DynamoDBStore\n"
        "DynamoDBOnlineStore(DynamoDBStore(region='eu-central-1')).reader([])\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "UsageError: the Python package boto3 is not installed" in done.stderr
    assert "pip install 'lodestar-ml[dynamodb]'" in done.stderr
