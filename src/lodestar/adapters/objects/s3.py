"""S3, and stores that speak its protocol, through s3fs."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from lodestar.adapters.drivers import driver
from lodestar.adapters.files.formats import SUFFIXES
from lodestar.adapters.objects.errors import (
    StoreError,
    Trouble,
    Vocabulary,
    causes,
)
from lodestar.adapters.objects.places import Place
from lodestar.adapters.objects.rows import Stores
from lodestar.adapters.objects.sets import ObjectAdapters
from lodestar.adapters.objects.store import MultipartUpload, ObjectInfo
from lodestar.errors import first_line
from lodestar.settings.stores import S3

__all__ = ["ADAPTERS", "S3Store"]

_WORDS = Vocabulary(
    codes={
        Trouble.NO_OBJECT: frozenset({"NoSuchKey", "404"}),
        Trouble.NO_BUCKET: frozenset({"NoSuchBucket"}),
        Trouble.CREDENTIALS: frozenset(
            {
                *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
                *("TokenRefreshRequired", "RequestTimeTooSkewed", "InvalidClientTokenId"),
            }
        ),
        Trouble.REFUSED: frozenset({"AccessDenied", "AllAccessDisabled", "AccountProblem", "403"}),
        Trouble.REGION: frozenset(
            {
                *("PermanentRedirect", "AuthorizationHeaderMalformed", "301", "Redirect"),
                "IllegalLocationConstraintException",
            }
        ),
        Trouble.CHANGED: frozenset({"PreconditionFailed", "412", "InvalidRange", "416"}),
        Trouble.UNSURE: frozenset({"NoSuchUpload"}),
        Trouble.BUSY: frozenset(
            {
                *(
                    "SlowDown",
                    "ServiceUnavailable",
                    "InternalError",
                    "RequestTimeout",
                    "Throttling",
                ),
                *("ThrottlingException", "TooManyRequests", "OperationAborted", "503 Slow Down"),
                *("429", "500", "502", "503", "504"),
            }
        ),
    },
    kinds={
        Trouble.CREDENTIALS: frozenset(
            {
                *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"),
                *("ProfileNotFound", "TokenRetrievalError", "SSOTokenLoadError"),
                *("UnauthorizedSSOTokenError", "NoAuthTokenError"),
            }
        ),
        Trouble.CUT: frozenset(
            {
                *("ClientPayloadError", "IncompleteReadError", "ResponseStreamingError"),
                "ReadTimeoutError",
            }
        ),
        Trouble.UNREACHABLE: frozenset(
            {"HTTPClientError", "ClientError", "TimeoutError", "ConnectionError"}
        ),
    },
    packages=frozenset({"botocore", "aiobotocore", "aiohttp", "s3fs"}),
)
# A HEAD's answer has no body, so its code is only the status.
_UNCLEAR = {"301", "400", "403", "404"}
_FEW = 1_000
ABANDONED = timedelta(days=1)


class S3Store:
    """One client; every request is sent once, as whoever asks decides about another."""

    name = "S3"
    bucket = "bucket"
    credentials_hint = (
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role, or data.s3 in the "
        "config"
    )

    def __init__(self, config: S3) -> None:
        driver("s3fs", store=self.name, extra="s3", also="fsspec")
        self._config = config
        given = (config.access_key_id, config.secret_access_key, config.session_token)
        self._keys = [None if one is None else one.get_secret_value() for one in given]
        self.secrets = tuple(key for key in self._keys if key)
        self._files: Any = None

    async def open(self) -> None:
        """Make the file system, which looks for credentials."""
        from s3fs import S3FileSystem

        config = self._config
        key, secret, token = self._keys
        self._files = S3FileSystem(
            anon=config.anonymous,
            endpoint_url=config.endpoint_url,
            key=key,
            secret=secret,
            token=token,
            client_kwargs={"region_name": config.region} if config.region else {},
            config_kwargs={
                "connect_timeout": config.connect_timeout,
                "read_timeout": config.read_timeout,
                "retries": {"total_max_attempts": 1},
            },
            s3_additional_kwargs=_encryption(config),
            # Closed by us, and not whenever it is collected.
            asynchronous=True,
            skip_instance_cache=True,
            session=_session(config.profile),
        )
        self._files.retries = 1
        await self._files.set_session()

    async def close(self) -> None:
        """Close the client's connections."""
        if self._files is not None and self._files._s3 is not None:  # noqa: SLF001 -- no public way
            await self._files._s3creator.__aexit__(None, None, None)  # noqa: SLF001 -- no public way
            self._files = None

    async def info(self, place: Place) -> ObjectInfo:
        """What HEAD says; where that is an error, what a list says of the reason."""
        try:
            found = await self.call("head_object", place, Key=place.key)
        except Exception as error:
            if _code(error) not in _UNCLEAR:
                raise
            await self.call("list_objects_v2", place, Prefix=place.key, MaxKeys=1)
            raise
        return ObjectInfo(int(found["ContentLength"]), str(found["ETag"]))

    async def fetch(self, place: Place, info: ObjectInfo, start: int, end: int) -> bytes:
        """A range of that version; of another one the store sends nothing."""
        span = f"bytes={start}-{end - 1}"
        answer = await self.call(
            "get_object", place, Key=place.key, Range=span, IfMatch=info.version
        )
        body = answer["Body"]
        try:
            content: bytes = await body.read()
        finally:
            body.close()
        return content

    async def names(self, place: Place) -> list[str]:
        """Keys of the same folder."""
        found = await self.call(
            "list_objects_v2", place, Prefix=place.folder, Delimiter="/", MaxKeys=_FEW
        )
        return [str(one["Key"]) for one in found.get("Contents", [])]

    async def keys(self, place: Place) -> list[str]:
        """A list, page by page."""
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            page = await self.call("list_objects_v2", place, Prefix=place.key, **more)
            found += [str(one["Key"]) for one in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": str(page["NextContinuationToken"])}

    async def remove(self, place: Place) -> None:
        """S3 says nothing of an object that is not there."""
        await self.call("delete_object", place, Key=place.key)

    def upload(self, place: Place) -> MultipartUpload:
        """A multipart upload."""
        return _S3Upload(self, place)

    async def call(self, method: str, place: Place, **arguments: Any) -> Any:  # noqa: ANN401 -- as botocore answers
        """One request of S3's own interface."""
        return await self._files._call_s3(method, Bucket=place.bucket, **arguments)  # noqa: SLF001 -- its public form waits

    def understood(self, error: BaseException) -> StoreError:
        """By the code that S3 answered, else by the kind of the library's error."""
        if isinstance(error, StoreError):
            return error
        if (code := _code(error)) is None:
            return StoreError(_WORDS.of_kind(error), _message(error))
        return StoreError(_WORDS.of_code(code) or Trouble.OTHER, f"{code}, {_message(error)}")


class _S3Upload:
    """S3 keeps the parts, unseen and paid for, until they are completed or aborted."""

    def __init__(self, store: S3Store, place: Place) -> None:
        self._store = store
        self._place = place
        self._id: str | None = None
        self._tags: dict[int, str] = {}

    async def begin(self) -> None:
        found = await self._store.call("create_multipart_upload", self._place, Key=self._place.key)
        self._id = str(found["UploadId"])

    async def add(self, number: int, part: bytes, *, last: bool) -> None:
        del last
        found = await self._store.call(
            "upload_part",
            self._place,
            Key=self._place.key,
            UploadId=self._id,
            PartNumber=number + 1,
            Body=part,
        )
        self._tags[number] = str(found["ETag"])

    async def complete(self) -> None:
        parts = [{"PartNumber": number + 1, "ETag": tag} for number, tag in self._tags.items()]
        await self._store.call(
            "complete_multipart_upload",
            self._place,
            Key=self._place.key,
            UploadId=self._id,
            MultipartUpload={"Parts": parts},
        )

    async def abort(self) -> None:
        await self._end(self._place.key, self._id)

    async def end_abandoned(self, *, below: str | None = None) -> int:
        prefix = self._place.key if below is None else below
        uploads = await self._pages(
            "list_multipart_uploads",
            "Uploads",
            {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"},
            Prefix=prefix,
        )
        own = next((one for one in uploads if one["UploadId"] == self._id), None)
        long_ago = datetime.now(UTC) - ABANDONED
        found = [
            one
            for one in uploads
            if own is not None
            and one.get("Initiator") == own.get("Initiator")
            and (one["Key"] == prefix if below is None else one["Key"].endswith(SUFFIXES))
            and one["Initiated"] < long_ago
            and await self._last_added(one) < long_ago
        ]
        for one in found:
            await self._end(one["Key"], one["UploadId"])
        return len(found)

    async def _end(self, key: str, upload: str | None) -> None:
        await self._store.call("abort_multipart_upload", self._place, Key=key, UploadId=upload)

    async def _last_added(self, upload: Mapping[str, Any]) -> datetime:
        """When the last part came, or the upload began."""
        parts = await self._pages(
            "list_parts",
            "Parts",
            {"PartNumberMarker": "NextPartNumberMarker"},
            Key=upload["Key"],
            UploadId=upload["UploadId"],
        )
        times: list[datetime] = [upload["Initiated"], *(part["LastModified"] for part in parts)]
        return max(times)

    async def _pages(
        self, method: str, listed: str, markers: Mapping[str, str], **arguments: object
    ) -> list[Mapping[str, Any]]:
        """All that a list has; `markers` are where the next page begins, and what says so."""
        found: list[Mapping[str, Any]] = []
        while True:
            page = await self._store.call(method, self._place, **arguments)
            found += page.get(listed, [])
            if not page.get("IsTruncated"):
                return found
            arguments |= {name: page[next_one] for name, next_one in markers.items()}


@cache
def _session(profile: str | None) -> Any:  # noqa: ANN401 -- an aiobotocore session
    """Reads S3's interface and finds credentials, once: that is 50 ms, and a client of it 3."""
    from aiobotocore.session import AioSession

    return AioSession(profile=profile)


def _encryption(config: S3) -> dict[str, str]:
    section = config.encryption
    if section is None:
        return {}
    key = {} if section.kms_key_id is None else {"SSEKMSKeyId": section.kms_key_id}
    return {"ServerSideEncryption": section.kind, **key}


def _answers(error: BaseException) -> Iterator[Mapping[str, Any]]:
    """What S3 answered, wherever it is wrapped."""
    for one in causes(error):
        answer = getattr(one, "response", None)
        if isinstance(answer, Mapping) and isinstance(answer.get("Error"), Mapping):
            yield answer["Error"]


def _code(error: BaseException) -> str | None:
    return next((str(answer.get("Code")) for answer in _answers(error)), None)


def _message(error: BaseException) -> str:
    """S3's own words, without the request that they are about."""
    words = next((answer.get("Message") for answer in _answers(error)), None)
    return str(words or first_line(error)).partition("\n")[0]


ADAPTERS = ObjectAdapters(lambda data: Stores(lambda: S3Store(data.s3), data.s3))
