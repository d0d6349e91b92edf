"""What object stores do wrong, and what is said and done about it; each against an emulator."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from tests.contract.test_object_ports import encoded
from tests.faults.injector.answers import Answers
from tests.object_stores import AzureBox, Box, GcsBox, S3Box

from lodestar.adapters.objects.files import PART
from lodestar.adapters.objects.places import place_of
from lodestar.adapters.objects.rows import ObjectReader, ObjectWriter
from lodestar.adapters.objects.s3 import _session
from lodestar.adapters.registry import URI_READERS, WRITERS, adapter
from lodestar.errors import (
    DataError,
    ExternalError,
    LodestarError,
    UnreachableError,
    UsageError,
)
from lodestar.settings.config import Data

ROWS = pa.table({"row": range(1_000)})
TWICE = {"attempts": 2, "connect_timeout": 20, "read_timeout": 20}
ANY = pytest.mark.parametrize("kind", [S3Box, GcsBox, AzureBox])
ENDPOINTS = {S3Box: "s3_endpoint", GcsBox: "gcs_endpoint", AzureBox: "azure_endpoint"}
DRIVERS = {S3Box: ("s3fs", "s3"), GcsBox: ("gcsfs", "gcs"), AzureBox: ("adlfs", "azure")}


@pytest.fixture
def box(kind: type[Box], request: pytest.FixtureRequest) -> Box:
    made = kind(request.getfixturevalue(ENDPOINTS[kind]))
    made.make()
    return made


@pytest.fixture
def proxy(box: Box) -> Iterator[Answers]:
    there = urlsplit(box.endpoint)
    with Answers("127.0.0.1", there.port or 0) as made:
        yield made


def through(box: Box, proxy: Answers) -> str:
    return box.endpoint.replace(f":{urlsplit(box.endpoint).port}", f":{proxy.port}")


def reader(data: Data, uri: str) -> ObjectReader:
    made: ObjectReader = adapter(URI_READERS, uri.partition("://")[0], what="x")(data, Path(), uri)
    return made


def writer(data: Data, uri: str) -> ObjectWriter:
    made: ObjectWriter = adapter(WRITERS, uri.partition("://")[0], what="x")(data, Path())
    return made


def put(
    data: Data, uri: str, table: pa.Table = ROWS, *, then: Callable[[], None] | None = None
) -> None:
    with writer(data, uri).sink(uri, table.schema) as sink:
        for batch in table.to_batches(max_chunksize=100_000):
            sink.write(batch)
        if then is not None:
            then()


def big() -> pa.Table:
    """As arrow: 24 MB, so three parts and more."""
    return pa.table({"a": pa.array(range(3_000_000))})


def as_arrow(table: pa.Table) -> bytes:
    """As `put` writes it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as made:
        made.write_table(table, max_chunksize=100_000)
    return bytes(sink.getvalue())


@ANY
def test_a_large_object_goes_in_parts_and_comes_back_whole(box: Box) -> None:
    put(box.data(), box.uri("big.arrow"), big())
    assert len(box.get("big.arrow") or b"") > 2 * PART
    assert reader(box.data(), box.uri("big.arrow")).read(chunk_rows=500_000).read_all() == big()


@ANY
@pytest.mark.parametrize("ending", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_object(box: Box, ending: type[BaseException]) -> None:
    put(box.data(), box.uri("big.arrow"))

    def end() -> None:
        raise ending

    with pytest.raises(ending):
        put(box.data(), box.uri("big.arrow"), big(), then=end)
    assert box.get("big.arrow") == encoded(ROWS, ".arrow")
    if box.scheme == "s3":  # Google's sessions and Azure's blocks vanish by themselves
        assert not box.unfinished()


@ANY
@pytest.mark.parametrize("key", ["a b/ü & 100%+?#[1].csv", "서울/🚀.parquet"])
def test_a_key_is_taken_as_it_is_written(box: Box, key: str) -> None:
    put(box.data(), box.uri(key))
    assert box.names() == [key]
    assert reader(box.data(), box.uri(key)).read(chunk_rows=10_000).read_all().num_rows == 1_000


@ANY
def test_an_object_that_is_replaced_during_a_read_is_never_mixed(box: Box) -> None:
    first, second = (pa.table({"a": [number] * 50_000}) for number in (1, 2))
    put(box.data(), box.uri("t.parquet"), first)
    stream = reader(box.data(), box.uri("t.parquet")).read(chunk_rows=1_000)
    put(box.data(), box.uri("t.parquet"), second)
    with pytest.raises(DataError, match="was replaced while it was being read"):
        stream.read_all()


@ANY
def test_what_is_there_exists_and_what_is_not_does_not(box: Box) -> None:
    put(box.data(), box.uri("t.parquet"))
    assert reader(box.data(), box.uri("t.parquet")).exists()
    assert not reader(box.data(), box.uri("u.parquet")).exists()
    with pytest.raises(DataError, match=r"there is no (bucket|container) 'nowhere'"):
        reader(box.data(), f"{box.scheme}://nowhere/t.parquet").exists()


@ANY
def test_a_missing_object_is_told_with_its_neighbours(box: Box) -> None:
    put(box.data(), box.uri("shop/sales.parquet"))
    with pytest.raises(DataError, match=r"no object .*/shop/sale\.parquet") as caught:
        reader(box.data(), box.uri("shop/sale.parquet")).schema()
    assert "did you mean 'shop/sales.parquet'?" in str(caught.value)


@ANY
def test_a_missing_bucket_is_named_for_readers_and_writers(box: Box) -> None:
    uri = f"{box.scheme}://no-such-bucket/t.csv"
    for use in (lambda: reader(box.data(), uri).schema(), lambda: put(box.data(), uri)):
        with pytest.raises(DataError, match=r"there is no .* 'no-such-bucket' in"):
            use()


@ANY
def test_a_missing_driver_names_its_extra(kind: type[Box], monkeypatch: pytest.MonkeyPatch) -> None:
    driver, extra = DRIVERS[kind]
    for loaded in [name for name in sys.modules if name.partition(".")[0] == driver]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(ExternalError, match=f"package {driver}, which is not installed") as caught:
        reader(kind("http://127.0.0.1:1").data(), f"{kind.scheme}://box/t.csv").schema()
    assert f"pip install 'lodestar-ml[{extra}]'" in str(caught.value)


@ANY
def test_an_endpoint_where_nobody_listens_is_told_after_the_attempts(kind: type[Box]) -> None:
    endpoint = "http://127.0.0.1:1" + ("/devstoreaccount1" if kind is AzureBox else "")
    data = kind(endpoint).data(**TWICE)
    with pytest.raises(UnreachableError, match="does not answer, asked 2 times") as caught:
        reader(data, f"{kind.scheme}://box/t.csv").schema()
    assert "endpoint_url" in str(caught.value)


@ANY
def test_an_endpoint_that_never_answers_ends_by_the_timeout(box: Box, proxy: Answers) -> None:
    proxy.frozen = True
    quick = {"attempts": 2, "connect_timeout": 1, "read_timeout": 1}
    data = box.data(**{**quick, "endpoint_url": through(box, proxy)})
    with pytest.raises(UnreachableError, match="asked 2 times"):
        reader(data, box.uri("t.csv")).schema()
    assert proxy.held


@ANY
@pytest.mark.parametrize(("times", "attempts"), [(2, 3), (1_000, 3)])
def test_throttling_is_asked_again_as_often_as_the_config_says(
    box: Box, proxy: Answers, times: int, attempts: int
) -> None:
    box.put("t.csv", encoded(ROWS, ".csv"))
    slow = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
    proxy.answer("t.csv", 503, slow, times=times)
    data = box.data(attempts=attempts, endpoint_url=through(box, proxy))
    if times < attempts:
        assert reader(data, box.uri("t.csv")).schema().names == ["row"]
        assert proxy.answered == times
        return
    with pytest.raises(UnreachableError, match="asks to slow down or is not well, asked 3 times"):
        reader(data, box.uri("t.csv")).schema()
    assert proxy.answered == attempts


@ANY
def test_a_download_that_is_cut_is_fetched_again(box: Box, proxy: Answers) -> None:
    table = pa.table({"a": range(400_000)})
    box.put("t.arrow", encoded(table, ".arrow"))
    data = box.data(attempts=3, read_timeout=3, endpoint_url=through(box, proxy))
    found = reader(data, box.uri("t.arrow"))
    stream = found.read(chunk_rows=100_000)
    proxy.fail_at("GET", 2, "swallow")
    assert stream.read_all() == table
    assert proxy.fired.is_set()


@ANY
@pytest.mark.parametrize("which", [1, 2])
def test_a_part_whose_answer_was_lost_is_sent_again(box: Box, proxy: Answers, which: int) -> None:
    data = box.data(attempts=3, read_timeout=5, endpoint_url=through(box, proxy))
    proxy.fail_at("upload_id=" if box.scheme == "gs" else "PUT", which, "swallow")
    put(data, box.uri("big.arrow"), big())
    assert proxy.fired.is_set()
    assert box.get("big.arrow") == as_arrow(big())


@pytest.mark.parametrize("kind", [S3Box])
def test_an_upload_that_is_gone_when_it_is_asked_for_again_is_told(
    box: Box, proxy: Answers
) -> None:
    gone = b"<Error><Code>NoSuchUpload</Code><Message>It does not exist.</Message></Error>"
    proxy.answer(f"POST /{box.name}/t.csv?uploadId", 404, gone)
    data = box.data(**{**TWICE, "endpoint_url": through(box, proxy)})
    with pytest.raises(ExternalError, match=r"the upload of .* is gone") as caught:
        put(data, box.uri("t.csv"))
    assert "look whether the object is new" in str(caught.value)


@ANY
def test_a_publication_whose_answer_was_lost_is_asked_for_again(box: Box, proxy: Answers) -> None:
    last = {"s3": f"POST /{box.name}/t.arrow?uploadId", "gs": "upload_id=", "az": "comp=blocklist"}
    data = box.data(attempts=2, read_timeout=5, endpoint_url=through(box, proxy))
    proxy.fail_at(last[box.scheme], 1, "swallow")
    if box.scheme == "gs":
        # Google tells that it is complete; the emulator has forgotten the session, and we say so.
        with pytest.raises(ExternalError, match="look whether the object is new"):
            put(data, box.uri("t.arrow"))
    else:
        put(data, box.uri("t.arrow"))
    assert proxy.fired.is_set()
    assert box.get("t.arrow") == as_arrow(ROWS)


@ANY
def test_a_store_that_breaks_off_is_told_and_nothing_ends_early(box: Box, proxy: Answers) -> None:
    table = pa.table({"a": range(400_000)})
    box.put("t.arrow", encoded(table, ".arrow"))
    data = box.data(**{**TWICE, "endpoint_url": through(box, proxy)})
    stream = reader(data, box.uri("t.arrow")).read(chunk_rows=100_000)
    proxy.refuse()
    with pytest.raises(UnreachableError):
        stream.read_all()


@pytest.mark.parametrize("kind", [S3Box])
@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "InvalidAccessKeyId", "does not accept them"),
        (403, "SignatureDoesNotMatch", "does not accept them"),
        (400, "ExpiredToken", "does not accept them"),
        (403, "AccessDenied", "S3 refuses s3://"),
        (301, "PermanentRedirect", "is in another region"),
        (400, "AuthorizationHeaderMalformed", "is in another region"),
        (400, "InvalidRequest", "S3 cannot do it"),
    ],
)
def test_what_s3_answers_is_worded_with_what_to_do(
    box: Box, proxy: Answers, status: int, code: str, words: str
) -> None:
    body = f"<Error><Code>{code}</Code><Message>It said so.</Message></Error>"
    proxy.answer(box.name, status, body.encode(), "x-amz-bucket-region: eu-west-1")
    data = box.data(**{**TWICE, "endpoint_url": through(box, proxy)})
    for use in (
        lambda: reader(data, box.uri("t.csv")).schema(),
        lambda: put(data, box.uri("t.csv")),
    ):
        with pytest.raises(ExternalError, match=words) as caught:
            use()
        assert code in str(caught.value)
        assert "It said so." in str(caught.value)


@pytest.mark.parametrize("kind", [GcsBox])
@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not accept them"),
        (403, "Google Cloud Storage refuses gs://"),
        (400, "cannot do it"),
    ],
)
def test_what_google_answers_is_worded_with_what_to_do(
    box: Box, proxy: Answers, status: int, words: str
) -> None:
    body = json.dumps({"error": {"code": status, "message": "It said so."}})
    proxy.answer(box.name, status, body.encode())
    data = box.data(**{**TWICE, "endpoint_url": through(box, proxy)})
    for use in (
        lambda: reader(data, box.uri("t.csv")).schema(),
        lambda: put(data, box.uri("t.csv")),
    ):
        with pytest.raises(ExternalError, match=words) as caught:
            use()
        assert "It said so." in str(caught.value)


@pytest.mark.parametrize("kind", [AzureBox])
def test_a_wrong_key_of_azure_is_told(box: Box) -> None:
    data = box.data(account_key="d3Jvbmc=")
    for use in (
        lambda: reader(data, box.uri("t.csv")).schema(),
        lambda: put(data, box.uri("t.csv")),
    ):
        with pytest.raises(ExternalError, match=r"Azure Blob Storage .*") as caught:
            use()
        assert "d3Jvbmc" not in str(caught.value)


def test_no_credentials_are_told_with_the_ways_to_give_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [one for one in os.environ if one.startswith(("AWS_", "GOOGLE_", "AZURE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "CLOUDSDK_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    _session.cache_clear()
    data = Data(adapter="duckdb", root="data", snapshots="data/snapshots")
    for uri, hint in (
        ("s3://box/t.csv", "AWS_ACCESS_KEY_ID"),
        ("gs://box/t.csv", "gcloud auth application-default login"),
        ("az://box/t.csv", "AZURE_STORAGE_CONNECTION_STRING"),
    ):
        with pytest.raises(ExternalError, match="has no credentials") as caught:
            reader(data, uri).schema()
        assert hint in str(caught.value)
    _session.cache_clear()


CANARY = "CANARYp4ssw0rd+canary/xyz"


@pytest.mark.parametrize(
    ("uri", "sections"),
    [
        (
            "s3://box/t.csv",
            {"s3": {"access_key_id": CANARY, "secret_access_key": CANARY, "session_token": CANARY}},
        ),
        ("gs://box/t.csv", {"gcs": {"credentials": CANARY}}),
        ("gs://box/t.csv", {"gcs": {"credentials": json.dumps({"private_key": CANARY})}}),
        ("az://box/t.csv", {"azure": {"account": "a", "account_key": CANARY}}),
        ("az://box/t.csv", {"azure": {"account": "a", "sas_token": f"?sv=1&sig={CANARY}"}}),
        ("az://box/t.csv", {"azure": {"connection_string": f"AccountKey={CANARY}"}}),
        ("az://box/t.csv", {"azure": {"connection_string": CANARY}}),
    ],
)
def test_no_secret_of_the_config_is_in_an_error_or_a_log(
    uri: str, sections: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    if "connection_string" not in next(iter(sections.values())):
        for section in sections.values():
            section.update({"endpoint_url": "http://127.0.0.1:1"} | TWICE)
    place = {"adapter": "duckdb", "root": "data", "snapshots": "data/snapshots"}
    data = Data.model_validate({**place, **sections}, strict=False)
    with caplog.at_level(logging.INFO), pytest.raises(LodestarError) as caught:
        reader(data, uri).schema()
    assert CANARY not in str(caught.value) + repr(data) + caplog.text


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://user:CANARY@bucket/t.csv", "holds no user, password"),
        ("s3://bucket:80/t.csv", "holds no user, password"),
        ("abfs://container@account.dfs.core.windows.net/t.csv", "holds no user, password"),
        ("s3://bucket", "names no object"),
        ("s3://bucket/", "names no object"),
        ("s3:///t.csv", "is no name of a bucket"),
        ("s3://b_/t\n.csv", "no name of an object"),
        ("s3://bucket/folder/", "names no object"),
        ("s3://bucket/a/../t.csv", "only dots"),
    ],
)
def test_a_uri_that_names_no_object_is_refused_before_anybody_is_asked(
    uri: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        place_of(uri)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.parquet.zip", "t.CSV"])
def test_other_kinds_of_objects_are_refused_with_the_valid_ones(name: str) -> None:
    data = S3Box("http://127.0.0.1:1").data()
    uri = f"s3://bucket/{name}"
    for use in (lambda: reader(data, uri), lambda: writer(data, uri).sink(uri, ROWS.schema)):
        with pytest.raises(UsageError, match=r"\.parquet, \.csv, \.arrow"):
            use()


@pytest.mark.parametrize("kind", [S3Box])
def test_objects_are_encrypted_as_the_config_says(box: S3Box) -> None:
    data = box.data(encryption={"kind": "aws:kms", "kms_key_id": "alias/lodestar"})
    put(data, box.uri("t.csv"))
    found = box.client.head_object(Bucket=box.name, Key="t.csv")
    assert found["ServerSideEncryption"] == "aws:kms"
    assert found["SSEKMSKeyId"] == "alias/lodestar"


OLD, YOUNG = "2025-01-01T00:00:00.000Z", "2999-01-01T00:00:00.000Z"


def left_behind(box: S3Box, key: str, **metadata: str) -> str:
    """An upload that nobody goes on with."""
    made = box.client.create_multipart_upload(Bucket=box.name, Key=key, Metadata=metadata)
    upload: str = made["UploadId"]
    return upload


@pytest.mark.parametrize("kind", [S3Box])
def test_what_a_killed_writer_left_is_ended_by_the_next_one_of_the_same_object(
    box: S3Box,
) -> None:
    left_behind(box, "t.csv", began=OLD)
    left_behind(box, "t.csv", began=YOUNG)
    left_behind(box, "t.csv", began=OLD, initiator="somebody else")
    left_behind(box, "t.csv.parquet", began=OLD)
    growing = left_behind(box, "t.csv", began=OLD)
    part = {"UploadId": growing, "PartNumber": 1, "Body": b"just now"}
    box.client.upload_part(Bucket=box.name, Key="t.csv", **part)
    put(box.data(), box.uri("t.csv"))
    assert sorted(box.unfinished()) == ["t.csv", "t.csv", "t.csv", "t.csv.parquet"]
    assert box.get("t.csv") == encoded(ROWS, ".csv")


@pytest.mark.parametrize("kind", [S3Box])
def test_a_writer_that_may_not_list_uploads_writes(box: S3Box, proxy: Answers) -> None:
    refusal = b"<Error><Code>AccessDenied</Code><Message>No.</Message></Error>"
    proxy.answer(f"GET /{box.name}?uploads", 403, refusal)
    data = box.data(endpoint_url=through(box, proxy))
    put(data, box.uri("t.csv"))
    assert proxy.answered
    assert box.get("t.csv") == encoded(ROWS, ".csv")
    said = writer(data, box.uri("t.csv")).probe(box.uri("")[:-1])
    assert "left parts there cannot be seen: AccessDenied, No." in said


@pytest.mark.parametrize("kind", [S3Box])
def test_a_probe_ends_what_killed_writers_left_in_the_folder(box: S3Box) -> None:
    for key in ("results/t.csv", "results/deep/u.parquet", "results/notes.txt", "other/t.csv"):
        left_behind(box, key, began=OLD)
    said = writer(box.data(), box.uri("x")).probe(box.uri("results"))
    assert said.endswith("read and removed; uploads of killed writers that were ended there: 2")
    assert sorted(box.unfinished()) == ["other/t.csv", "results/notes.txt"]
    said = writer(box.data(), box.uri("x")).probe(box.uri("results"))
    assert said == "an object was written, read and removed"


@pytest.mark.parametrize("kind", [S3Box])
def test_a_probe_that_fails_leaves_no_upload(box: S3Box, proxy: Answers) -> None:
    proxy.answer("partNumber=1", 403, b"<Error><Code>AccessDenied</Code></Error>")
    with pytest.raises(ExternalError, match="S3 refuses"):
        writer(box.data(endpoint_url=through(box, proxy)), box.uri("x")).probe(box.uri("results"))
    assert not box.unfinished()
