"""The section feature_store.dynamodb: what it takes, what it refuses, and that keys stay hidden."""

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from lodestar.settings.dynamodb import DynamoDBStore
from lodestar.settings.feature_store import FeatureStore

REDIS = {"uri": "redis://127.0.0.1:6379/0"}
FEAST = {"project": "shop", "registry": "sqlite:///registry.db"}


def store(**values: Any) -> FeatureStore:  # noqa: ANN401 -- the sections
    given = {"offline": "files", **values}
    for name, key in (("redis", "uri"), ("feast", "registry"), ("feast", "online")):
        if key in given.get(name, {}):
            given[name] = {**given[name], key: SecretStr(given[name][key])}
    return FeatureStore.model_validate(given)


def test_dynamodb_is_chosen_by_its_section_alone_or_by_name() -> None:
    assert store(dynamodb={}).chosen == "dynamodb"
    assert store(provider="dynamodb", dynamodb={}, redis=REDIS).chosen == "dynamodb"
    given = {"region": "eu-central-1"}
    assert store(dynamodb=given, feast={**FEAST, "online": "dynamodb"}).chosen == "feast"
    assert store(redis=REDIS).chosen == "redis"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"provider": "dynamodb"}, "the section dynamodb is needed"),
        ({"feast": {**FEAST, "online": "dynamodb"}}, "the section dynamodb is needed"),
        ({"feast": FEAST, "dynamodb": {}}, "the section redis is needed"),
        ({"redis": REDIS, "dynamodb": {}}, "say which as provider"),
        ({"feast": {**FEAST, "online": "dynamodb"}, "dynamodb": {}}, "needs the region"),
        (
            {
                "feast": {**FEAST, "online": "dynamodb"},
                "dynamodb": {"region": "eu-central-1", "profile": "shop"},
            },
            "AWS's own chain alone",
        ),
    ],
)
def test_what_is_chosen_must_be_declared_and_one_must_be_chosen(
    values: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        store(**values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"access_key_id": SecretStr("a")}, "given together"),
        ({"secret_access_key": SecretStr("hunter2")}, "given together"),
        ({"session_token": SecretStr("hunter2")}, "needs access_key_id"),
        (
            {
                "profile": "shop",
                "access_key_id": SecretStr("a"),
                "secret_access_key": SecretStr("hunter2"),
            },
            "the profile says the keys",
        ),
        ({"endpoint_url": "127.0.0.1:8000"}, "an endpoint is"),
        ({"endpoint_url": "https://me:hunter2@host"}, "an endpoint is"),
        ({"endpoint_url": "http://host:port"}, "an endpoint is"),
        ({"table_prefix": "shop/"}, "a prefix is"),
        ({"timeout": 0}, "greater than 0"),
        ({"timeout": 61}, "less than or equal"),
        ({"writes": "often"}, "conditional"),
        ({"tables": {"billing": "provisioned", "read_units": 5}}, "write_units are needed"),
        ({"tables": {"write_units": 5}}, "belong to billing"),
        ({"tables": {"backup_days": 36}}, "less than or equal"),
        ({"tables": {"expires": "age"}}, "begin it with @"),
        ({"tables": {"expires": "@event"}}, "begin it with @"),
        ({"tables": {"ttl": "1d"}}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        DynamoDBStore.model_validate(values)
    if "endpoint_url" not in values:  # pydantic's own words repeat what was given; ours do not
        assert "hunter2" not in str(caught.value)


def test_keys_are_shown_nowhere() -> None:
    section = DynamoDBStore(
        access_key_id=SecretStr("AKIAHUNTER"), secret_access_key=SecretStr("hunter2")
    )
    for said in (repr(section), str(section), section.model_dump_json()):
        assert "hunter2" not in said
        assert "AKIAHUNTER" not in said
