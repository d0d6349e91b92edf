"""Makes boto3's DynamoDB client: its credentials, its place, its timeouts; loaded when it is needed."""

import logging
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import SecretStr

from lodestar.adapters.drivers import from_extra
from lodestar.errors import ExternalError, UsageError, choices
from lodestar.settings.dynamodb import DynamoDBStore

__all__ = ["PARALLEL", "OpenedClient", "open_client"]

PARALLEL = 8  # requests at a time
CHAIN = "environment, profile, or the role of the machine; AWS lists where it looks"


@dataclass(frozen=True)
class OpenedClient:
    """boto3's client, where it goes, in words, and what no message may hold."""

    client: Any
    region: str
    place: str
    secrets: tuple[str, ...] = field(repr=False)


def open_client(store: DynamoDBStore) -> OpenedClient:
    """Make a client; nothing is sent, unless credentials are asked of the machine.

    Raises:
        UsageError: boto3 is not installed, or there is no region or no such profile.
        ExternalError: there are no credentials.
    """
    with from_extra("dynamodb", "boto3", "botocore"):
        import boto3
        from botocore.exceptions import BotoCoreError, ProfileNotFound
    _quiet()
    try:
        session = _session(store)
        secrets = _secrets(session)
        client = _client(session, store)
    except ProfileNotFound as error:
        raise UsageError(
            f"there is no AWS profile {store.profile or 'of that name'!r}",
            hint=choices(store.profile or "", boto3.Session().available_profiles)
            if store.profile
            else "AWS_PROFILE names it",
        ) from error
    except BotoCoreError as error:
        raise ExternalError(
            f"AWS's settings or credentials cannot be used: {type(error).__name__}", hint=CHAIN
        ) from None
    region = session.region_name
    place = f"DynamoDB in {region}"
    if client.meta.endpoint_url and ".amazonaws." not in client.meta.endpoint_url:
        place = f"DynamoDB at {client.meta.endpoint_url} ({region})"
    return OpenedClient(client, region, place, secrets)


def _session(store: DynamoDBStore) -> Any:  # noqa: ANN401 -- boto3 publishes no types
    import boto3
    from botocore.session import get_session

    core = get_session()
    core.register_component("data_loader", _descriptions())
    session = boto3.Session(
        botocore_session=core,
        aws_access_key_id=_shown(store.access_key_id),
        aws_secret_access_key=_shown(store.secret_access_key),
        aws_session_token=_shown(store.session_token),
        region_name=store.region,
        profile_name=store.profile,
    )
    if session.region_name is None:
        raise UsageError(
            "DynamoDB needs a region, and neither the config nor AWS's own settings name one",
            hint="set feature_store.dynamodb.region, such as eu-central-1",
        )
    return session


def _secrets(session: Any) -> tuple[str, ...]:  # noqa: ANN401 -- boto3 publishes no types
    credentials = session.get_credentials()
    if credentials is None:
        raise ExternalError("no AWS credentials were found", hint=CHAIN)
    frozen = credentials.get_frozen_credentials()
    return tuple(filter(None, (frozen.access_key, frozen.secret_key, frozen.token)))


def _client(session: Any, store: DynamoDBStore) -> Any:  # noqa: ANN401 -- boto3 publishes no types
    from botocore.config import Config

    return session.client(
        "dynamodb",
        endpoint_url=store.endpoint_url,
        config=Config(
            connect_timeout=store.timeout,
            read_timeout=store.timeout,
            # What is tried again, and for how long, is ours to say. The older mode is the one
            # whose last attempt still holds an answer to its checksum.
            retries={"total_max_attempts": 1, "mode": "legacy"},
            max_pool_connections=2 * PARALLEL,
            parameter_validation=False,
            tcp_keepalive=True,
        ),
    )


@cache
def _descriptions() -> Any:  # noqa: ANN401 -- botocore's loader
    """What botocore knows of AWS's services: reading it takes most of what making a client does."""
    from botocore.session import get_session

    return get_session().get_component("data_loader")


def _shown(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _quiet() -> None:
    """Keep botocore's debug log out of everybody's: it holds session tokens and feature values."""
    for name in ("botocore", "boto3"):
        log = logging.getLogger(name)
        if log.level in {logging.NOTSET, logging.DEBUG}:
            log.setLevel(logging.INFO)
