"""Azure Blob Storage, through adlfs."""

import io
import secrets
from collections.abc import Mapping
from typing import Any

from lodestar.adapters.drivers import driver
from lodestar.adapters.objects.errors import StoreError, Trouble, Vocabulary
from lodestar.adapters.objects.places import Place
from lodestar.adapters.objects.rows import Stores
from lodestar.adapters.objects.sets import ObjectAdapters
from lodestar.adapters.objects.store import MultipartUpload, ObjectInfo
from lodestar.errors import first_line
from lodestar.settings.stores import Azure

__all__ = ["ADAPTERS", "AzureStore"]

_WORDS = Vocabulary(
    codes={
        Trouble.NO_OBJECT: frozenset({"BlobNotFound", "ResourceNotFound"}),
        Trouble.NO_BUCKET: frozenset(
            {"ContainerNotFound", "InvalidResourceName", "ContainerDisabled"}
        ),
        Trouble.CREDENTIALS: frozenset(
            {"AuthenticationFailed", "NoAuthenticationInformation", "InvalidAuthenticationInfo"}
        ),
        Trouble.REFUSED: frozenset(
            {
                *("AuthorizationFailure", "AuthorizationPermissionMismatch", "AccountIsDisabled"),
                *("InsufficientAccountPermissions", "PublicAccessNotPermitted"),
                *("AuthorizationProtocolMismatch", "AuthorizationSourceIPMismatch"),
            }
        ),
        Trouble.CHANGED: frozenset({"ConditionNotMet", "InvalidRange"}),
        # Whoever completes first drops the blocks of the others.
        Trouble.OVERTAKEN: frozenset({"InvalidBlockList", "InvalidBlobOrBlock"}),
        Trouble.BUSY: frozenset({"ServerBusy", "InternalError", "OperationTimedOut"}),
    },
    kinds={
        Trouble.CREDENTIALS: frozenset({"ClientAuthenticationError"}),
        Trouble.UNREACHABLE: frozenset(
            {"ServiceRequestError", "ClientConnectionError", "TimeoutError", "ConnectionError"}
        ),
        Trouble.CUT: frozenset(
            {"ServiceResponseError", "IncompleteReadError", "ClientPayloadError"}
        ),
    },
    packages=frozenset({"azure", "adlfs", "aiohttp", "msal"}),
)
_STATUSES: Mapping[int, Trouble] = {
    401: Trouble.CREDENTIALS,
    403: Trouble.REFUSED,
    404: Trouble.NO_OBJECT,
    412: Trouble.CHANGED,
    **dict.fromkeys((408, 429, 500, 502, 503, 504), Trouble.BUSY),
}
_FEW = 1_000


class AzureStore:
    """One service client; every request is sent once, as whoever asks decides about another."""

    name = "Azure Blob Storage"
    bucket = "container"
    credentials_hint = (
        "set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with az login or an "
        "identity, or data.azure in the config"
    )

    def __init__(self, config: Azure) -> None:
        driver("adlfs", store=self.name, extra="azure", also="fsspec")
        self._config = config
        given = (config.account_key, config.sas_token, config.connection_string)
        self.secrets = tuple(one.get_secret_value() for one in given if one is not None)
        self._files: Any = None
        # What every request is given: no attempts of the library's own, and the timeouts.
        self.once: Mapping[str, Any] = {
            "retry_total": 0,
            "connection_timeout": config.connect_timeout,
            "read_timeout": config.read_timeout,
        }

    async def open(self) -> None:
        """Make the file system, which looks for credentials."""
        from adlfs import AzureBlobFileSystem

        try:
            self._files = AzureBlobFileSystem(
                account_name=self._config.account,
                connection_string=_connection_string(self._config),
                skip_instance_cache=True,
            )
        except ValueError:  # its words may quote the connection string
            raise StoreError(
                Trouble.CREDENTIALS, "no account is named, or its connection string cannot be read"
            ) from None

    async def close(self) -> None:
        """Close the client's connections, and those of what gave it tokens."""
        if self._files is None:
            return
        await self._files.service_client.close()
        if self._files.credential is not None:
            await self._files.credential.close()
        self._files = None

    async def info(self, place: Place) -> ObjectInfo:
        """The blob's properties."""
        found = await self.blob(place).get_blob_properties(**self.once)
        return ObjectInfo(int(found.size), str(found.etag))

    async def fetch(self, place: Place, info: ObjectInfo, start: int, end: int) -> bytes:
        """A range of that version; of another one the store sends nothing."""
        from azure.core import MatchConditions

        stream = await self.blob(place).download_blob(
            offset=start,
            length=end - start,
            etag=info.version,
            match_condition=MatchConditions.IfNotModified,
            **self.once,
        )
        content: bytes = await stream.readall()
        return content

    async def names(self, place: Place) -> list[str]:
        """Names of the same folder."""
        container = self._files.service_client.get_container_client(place.bucket)
        found: list[str] = []
        async for blob in container.walk_blobs(place.folder, delimiter="/", **self.once):
            found.append(str(blob.name))
            if len(found) == _FEW:
                break
        return [name for name in found if not name.endswith("/")]

    async def keys(self, place: Place) -> list[str]:
        """A list, which the library asks for page by page."""
        container = self._files.service_client.get_container_client(place.bucket)
        names = container.list_blob_names(name_starts_with=place.key, **self.once)
        return [str(name) async for name in names]

    async def remove(self, place: Place) -> None:
        """The blob; the account may keep it for a while, as it is set up to."""
        await self.blob(place).delete_blob(**self.once)

    def upload(self, place: Place) -> MultipartUpload:
        """Blocks, and a list of them."""
        return _AzureUpload(self, place, self._config.encryption_scope)

    def blob(self, place: Place) -> Any:  # noqa: ANN401 -- an azure client
        """What asks about one blob."""
        return self._files.service_client.get_blob_client(place.bucket, place.key)

    def understood(self, error: BaseException) -> StoreError:
        """By the code or status that was answered, else by the kind of the library's error."""
        if isinstance(error, StoreError):
            return error
        code, said = _code(error), first_line(error)
        if (trouble := _WORDS.of_code(code)) is not None:
            return StoreError(trouble, f"{code}, {said}")
        status = getattr(error, "status_code", None) or 0
        return StoreError(_STATUSES.get(status) or _WORDS.of_kind(error), said)


class _AzureUpload:
    """Blocks that nobody lists become the blob with one request, else vanish in a week."""

    def __init__(self, store: AzureStore, place: Place, encryption_scope: str | None) -> None:
        self._store = store
        self._place = place
        self._scope = {} if encryption_scope is None else {"encryption_scope": encryption_scope}
        self._mark = secrets.token_hex(8)
        self._blocks: list[str] = []

    async def begin(self) -> None:
        """Nothing to open: the first block is the first request."""

    async def add(self, number: int, part: bytes, *, last: bool) -> None:
        """All of a blob's block names must have one length, whoever sends them."""
        del last
        block = f"{self._mark}{number:08}"
        await self._store.blob(self._place).stage_block(
            block, io.BytesIO(part), length=len(part), **self._scope, **self._store.once
        )
        if block not in self._blocks:
            self._blocks.append(block)

    async def complete(self) -> None:
        from azure.storage.blob import BlobBlock

        blocks = [BlobBlock(block) for block in self._blocks]
        await self._store.blob(self._place).commit_block_list(
            blocks, **self._scope, **self._store.once
        )

    async def abort(self) -> None:
        """There is no such request: blocks that were never listed are dropped by the store itself."""


def _connection_string(config: Azure) -> str | None:
    """The config's own way in, as one text: adlfs lets the environment's overrule any other."""
    if config.connection_string is not None:
        return config.connection_string.get_secret_value()
    if config.account is None and config.endpoint_url is None:
        return None
    address = config.endpoint_url or f"https://{config.account}.blob.core.windows.net"
    parts = [f"BlobEndpoint={address}"]
    if config.account_key is not None:
        parts += [
            f"AccountName={config.account}",
            f"AccountKey={config.account_key.get_secret_value()}",
        ]
    elif config.sas_token is not None:
        token = config.sas_token.get_secret_value().removeprefix("?")
        parts.append(f"SharedAccessSignature={token}")
    elif not config.anonymous:
        return None
    return ";".join(parts)


def _code(error: BaseException) -> str | None:
    code = getattr(error, "error_code", None)
    return None if code is None else str(getattr(code, "value", code))


ADAPTERS = ObjectAdapters(lambda data: Stores(lambda: AzureStore(data.azure), data.azure))
