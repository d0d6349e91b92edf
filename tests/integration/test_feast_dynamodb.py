"""Feast on DynamoDB beside ours: the same items, the same answers, and where its own would be wrong."""

import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.dynamodb_places import (
    KEY,
    REGION,
    SECRET,
    Scripted,
    client_of,
    refusal,
    scripted,
    section,
    tables_of,
)
from tests.feast_places import NAMES, NOON, ROWS, catalog_of, changed, feast_key, feast_value

from lodestar.adapters.feast.dynamodb import FeastDynamoDBStore, FeastItems
from lodestar.adapters.feast.online_stores import online_store_of
from lodestar.adapters.feast.repository import FeastOnlineStore, FeastRepository, FeastStores
from lodestar.adapters.feast.team import TeamRepository
from lodestar.errors import ExternalError, NotAllowedError
from lodestar.settings.features import FeatureView
from lodestar.testing.online import CONTRACT_VIEWS, every_feature_of, stored_rows

KINDS, PAIRS, WORDS, _ = CONTRACT_VIEWS
TEXTS = st.text(max_size=20)
INTS = st.integers(-(2**63), 2**63 - 1)
CODES = pa.record_batch({"code": ["a", "b", "nobody"]})


@pytest.fixture(autouse=True)
def _chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast looks for credentials where AWS's own chain does, and nowhere else."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.fixture
def server(dynamodb_url: str) -> Iterator[Scripted]:
    with scripted(dynamodb_url) as found:
        yield found


def repository_of(
    server: Scripted,
    folder: Path,
    *views: FeatureView,
    project: str,
    **tables: Any,  # noqa: ANN401 -- of the section
) -> FeastRepository:
    chain = {"access_key_id": None, "secret_access_key": None, "table_prefix": "t."}
    online = section(server.url, **chain, tables=tables)
    registry = SecretStr(f"sqlite:///{folder / 'registry.db'}")
    return FeastRepository(FeastStores(project, registry, folder, online), catalog_of(*views))


@pytest.fixture
def repository(server: Scripted, tmp_path: Path) -> Iterator[FeastRepository]:
    made = repository_of(
        server, tmp_path, KINDS, WORDS, project=f"p{uuid4().hex}", tags={"team": "growth"}
    )
    made.apply()
    yield made
    made.close()


@settings(deadline=None)
@given(left=INTS, right=INTS, first=TEXTS, second=TEXTS)
def test_entity_ids_are_feasts_own(left: int, right: int, first: str, second: str) -> None:
    from feast.infra.online_stores.helpers import compute_entity_id

    layout = FeastItems("{project}.{table_name}", "shop")
    numbers = feast_key(
        join_keys=["left", "right"],
        entity_values=[feast_value(int64_val=left), feast_value(int64_val=right)],
    )
    texts = feast_key(
        join_keys=["first", "second"],
        entity_values=[feast_value(string_val=first), feast_value(string_val=second)],
    )
    assert layout.name_of(PAIRS)((left, right)) == compute_entity_id(numbers)
    assert layout.name_of(WORDS)((first, second)) == compute_entity_id(texts)


def test_feast_answers_with_what_we_wrote(repository: FeastRepository) -> None:
    with closing(FeastOnlineStore(repository)) as store:
        assert store.write(KINDS, iter([stored_rows(KINDS, ROWS)])) == 2
        store.set_watermark(KINDS, NOON)
        assert store.watermark(KINDS) == NOON
        asked = [{"code": code} for code in ("a", "b", "nobody")]
        answer = repository.store.get_online_features(NAMES, asked).to_dict()
        ours = store.read(CODES, every_feature_of(KINDS))
    theirs = {name: answer[name] for name in KINDS.features}
    micros = (NOON - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert theirs.pop("moment") == [micros, None, None]
    assert theirs == ours.features.drop_columns(["moment"]).to_pydict()


def test_we_answer_with_what_feast_wrote_and_keep_newer_than_that(
    repository: FeastRepository,
) -> None:
    with closing(FeastOnlineStore(repository)) as store:
        _write_by_feast(repository, "a", NOON, 7)
        rows = store.read(CODES, every_feature_of(KINDS))
        assert rows.features.column("whole").to_pylist() == [7, None, None]
        assert rows.event_times["every_kind"].to_pylist() == [NOON, None, None]
        older = {"code": "a", "at": NOON - timedelta(seconds=1), "whole": 1}
        assert store.write(KINDS, iter([stored_rows(KINDS, [older])])) == 0
        corrected = {"code": "a", "at": NOON, "whole": 8, "created": NOON}
        assert store.write(KINDS, iter([stored_rows(KINDS, [corrected])])) == 1
        rows = store.read(CODES, every_feature_of(KINDS))
        assert rows.features.column("whole").to_pylist() == [8, None, None]


def test_feast_itself_lets_an_older_version_replace_a_newer_one(
    repository: FeastRepository,
) -> None:
    _write_by_feast(repository, "a", NOON, 1)
    _write_by_feast(repository, "a", NOON - timedelta(days=9), 2)
    with closing(FeastOnlineStore(repository)) as store:
        rows = store.read(CODES, every_feature_of(KINDS))
    assert rows.features.column("whole").to_pylist() == [2, None, None]


def test_what_dynamodb_leaves_unprocessed_is_missing_to_feast_and_asked_again_by_us(
    repository: FeastRepository, server: Scripted
) -> None:
    with closing(FeastOnlineStore(repository)) as store:
        store.write(KINDS, iter([stored_rows(KINDS, ROWS)]))
        left: list[int] = []

        def nothing_at_first(operation: str, request: dict[str, Any]) -> tuple[int, Any] | None:
            if operation != "BatchGetItem" or left:
                return None
            left.append(1)
            return 200, {"Responses": {}, "UnprocessedKeys": request["RequestItems"]}

        server.script = nothing_at_first
        asked = [{"code": code} for code in ("a", "b")]
        answer = repository.store.get_online_features(NAMES, asked).to_dict()
        assert answer["whole"] == [None, None]  # a's is -1
        assert left
        left.clear()
        rows = store.read(CODES, every_feature_of(KINDS))
        assert rows.features.column("whole").to_pylist() == [-1, None, None]
        assert left


def test_tables_are_made_with_our_options_and_keep_them(
    repository: FeastRepository, dynamodb_url: str
) -> None:
    client = client_of(dynamodb_url)
    table = f"t.{repository.project}.every_kind"
    made = client.describe_table(TableName=table)["Table"]
    tags = client.list_tags_of_resource(ResourceArn=made["TableArn"])["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {
        "managed_by": "lodestar",
        "team": "growth",
    }
    backups = client.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


def test_a_changed_declaration_drops_the_watermark_and_a_gone_one_its_table(
    repository: FeastRepository, server: Scripted, tmp_path: Path, dynamodb_url: str
) -> None:
    with closing(FeastOnlineStore(repository)) as store:
        store.write(KINDS, iter([stored_rows(KINDS, ROWS)]))
        store.set_watermark(KINDS, NOON)
    wider = changed(KINDS, features={**KINDS.features, "colour": "string"})
    again = repository_of(server, tmp_path, wider, project=repository.project)
    lines = again.apply().lines
    assert any("of_words" in line and line.startswith("-") for line in lines), lines
    tables = tables_of(client_of(dynamodb_url))
    assert f"t.{repository.project}.every_kind" in tables
    assert f"t.{repository.project}.of_words" not in tables
    with closing(FeastOnlineStore(again)) as store:
        assert store.watermark(wider) is None
        rows = store.read(CODES, every_feature_of(KINDS))
        assert rows.features.column("text").to_pylist() == ["é", "", None]  # its rows stay


def test_tables_that_may_not_be_made_are_refused_before_anything_is_registered(
    server: Scripted, tmp_path: Path
) -> None:
    made = repository_of(server, tmp_path, KINDS, project=f"p{uuid4().hex}", create=False)
    with pytest.raises(NotAllowedError, match="partition key entity_id"):
        made.apply()
    assert made.diff().items
    made.close()


def test_a_team_repository_on_dynamodb_is_read_by_our_own_client(
    repository: FeastRepository, server: Scripted, tmp_path: Path
) -> None:
    with closing(FeastOnlineStore(repository)) as store:
        store.write(KINDS, iter([stored_rows(KINDS, ROWS)]))
    folder = tmp_path / "team"
    folder.mkdir()
    folder.joinpath("feature_store.yaml").write_text(
        f"project: {repository.project}\n"
        f"registry: {{registry_type: sql, path: 'sqlite:///{tmp_path / 'registry.db'}'}}\n"
        "provider: local\n"
        "offline_store: {type: dask}\n"
        f"online_store: {{type: dynamodb, region: {REGION}, endpoint_url: '{server.url}', "
        "table_name_template: 't.{project}.{table_name}'}\n"
        "entity_key_serialization_version: 3\n",
        encoding="utf-8",
    )
    team = TeamRepository(folder, timeout=20.0)
    assert isinstance(online_store_of(team), FeastDynamoDBStore)
    with closing(online_store_of(team)) as store:
        rows = store.read(CODES, every_feature_of(KINDS))
        assert rows.features.column("text").to_pylist() == ["é", "", None]


def test_a_refusal_that_feast_meets_is_ours_without_the_keys(
    server: Scripted, tmp_path: Path
) -> None:
    made = repository_of(server, tmp_path, KINDS, project=f"p{uuid4().hex}")
    made.make_tables()
    repeated = f"should have been {KEY} {SECRET}"
    server.script = lambda operation, request: (
        refusal("InvalidSignatureException", repeated)
        if operation == "ListTagsOfResource"  # which Feast alone asks for
        else None
    )
    with pytest.raises(ExternalError, match="InvalidSignatureException") as caught:
        made.apply()
    said = "".join(traceback.format_exception(caught.value))
    assert SECRET not in said
    assert KEY not in said
    made.close()


def test_a_package_that_feast_lacks_names_its_extra(server: Scripted, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['aiobotocore'] = None\n"
        "from pathlib import Path\n"
        "from pydantic import SecretStr\n"
        "from lodestar.adapters.feast.repository import FeastRepository, FeastStores\n"
        "from lodestar.settings.dynamodb import DynamoDBStore\n"
        "from lodestar.settings.features import FeatureCatalog\n"
        "online = DynamoDBStore(region='eu-central-1')\n"
        "stores = FeastStores('shop', SecretStr('sqlite:///x.db'), Path('/'), online)\n"
        "FeastRepository(stores, FeatureCatalog({})).store\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "UsageError: the Python package aiobotocore is not installed" in done.stderr
    assert "pip install 'lodestar-ml[feast-dynamodb]'" in done.stderr


def _write_by_feast(repository: FeastRepository, code: str, at: datetime, whole: int) -> None:
    store = repository.store
    values = {name: feast_value() for name in KINDS.features}
    values["whole"], values["text"] = (
        feast_value(int64_val=whole),
        feast_value(string_val="by Feast"),
    )
    key = feast_key(join_keys=["code"], entity_values=[feast_value(string_val=code)])
    view = repository.registered(KINDS)
    store.provider.online_write_batch(store.config, view, [(key, values, at, None)], None)
