"""Google Cloud Storage, through gcsfs."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from lodestar.adapters.drivers import driver
from lodestar.adapters.objects.errors import StoreError, Trouble, Vocabulary
from lodestar.adapters.objects.places import Place
from lodestar.adapters.objects.rows import Stores
from lodestar.adapters.objects.sets import ObjectAdapters
from lodestar.adapters.objects.store import MultipartUpload, ObjectInfo
from lodestar.errors import first_line
from lodestar.settings.stores import GCS

__all__ = ["ADAPTERS", "GCSStore"]

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_FEW = 1_000
_UNAUTHORIZED = 401
_INCOMPLETE = 308  # so far so good: more bytes are expected
_BUSY = {408, 429, 500, 502, 503, 504}
_WORDS = Vocabulary(
    codes={},
    kinds={
        Trouble.BUSY: frozenset({"ProxyError"}),  # how gcsfs words status 502
        Trouble.CUT: frozenset({"ClientPayloadError", "ServerDisconnectedError"}),
        Trouble.UNREACHABLE: frozenset(
            {"ClientError", "TimeoutError", "TransportError", "ConnectionError"}
        ),
        Trouble.CREDENTIALS: frozenset({"GoogleAuthError"}),
        # gcsfs words what it does not know so.
        Trouble.OTHER: frozenset({"ValueError"}),
    },
    packages=frozenset({"gcsfs", "google", "aiohttp", "requests"}),
)


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes


class GCSStore:
    """One session; every request is sent once, as whoever asks decides about another."""

    name = "Google Cloud Storage"
    bucket = "bucket"
    credentials_hint = (
        "run gcloud auth application-default login, set GOOGLE_APPLICATION_CREDENTIALS, or set "
        "data.gcs.credentials in the config"
    )

    def __init__(self, config: GCS) -> None:
        driver("gcsfs", store=self.name, extra="gcs", also="fsspec")
        self._config = config
        key = config.credentials
        self._key = None if key is None else key.get_secret_value()
        self.secrets: tuple[str, ...] = () if self._key is None else (self._key,)
        self._files: Any = None

    async def open(self) -> None:
        """Make the file system with credentials that are there; it would go on without any."""
        import aiohttp
        from gcsfs.core import GCSFileSystem

        config = self._config
        self._files = GCSFileSystem(
            project=config.project or "",
            access="read_write",
            token=self._token(),
            endpoint_url=config.endpoint_url,
            requests_timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=config.connect_timeout, sock_read=config.read_timeout
            ),
            asynchronous=True,
            skip_instance_cache=True,
        )

    def _token(self) -> Any:  # noqa: ANN401 -- what gcsfs takes: a word, or google's credentials
        if self._config.anonymous:
            return "anon"
        if self._key is None:
            import google.auth

            return google.auth.default(scopes=[_SCOPE])[0]
        from google.oauth2.service_account import Credentials

        try:
            key = json.loads(self._key)
            return Credentials.from_service_account_info(key, scopes=[_SCOPE])  # type: ignore[no-untyped-call]  # not annotated there
        except (ValueError, KeyError, TypeError):  # their words may quote the key
            problem = "data.gcs.credentials is not the JSON of a service account's key"
            raise StoreError(Trouble.CREDENTIALS, problem) from None

    async def close(self) -> None:
        """Close the session's connections."""
        session = None if self._files is None else self._files._session  # noqa: SLF001 -- may be none yet
        if session is not None:
            await session.close()
        self._files = None

    async def info(self, place: Place) -> ObjectInfo:
        """The object's resource."""
        found = await self._found(place, f"b/{_part(place.bucket)}/o/{_part(place.key)}")
        return ObjectInfo(int(found["size"]), str(found["generation"]))

    async def fetch(self, place: Place, info: ObjectInfo, start: int, end: int) -> bytes:
        """A range of that generation; of another one the store sends nothing."""
        path = f"/download/storage/v1/b/{_part(place.bucket)}/o/{_part(place.key)}"
        span = {"Range": f"bytes={start}-{end - 1}"}
        answer = await self.call(
            "GET", path, headers=span, alt="media", ifGenerationMatch=info.version
        )
        return answer.content

    async def names(self, place: Place) -> list[str]:
        """Names of the same folder."""
        path = f"b/{_part(place.bucket)}/o"
        answer = await self.call("GET", path, prefix=place.folder, delimiter="/", maxResults=_FEW)
        return [str(one["name"]) for one in json.loads(answer.content).get("items", [])]

    async def keys(self, place: Place) -> list[str]:
        """A list, page by page."""
        path = f"b/{_part(place.bucket)}/o"
        found: list[str] = []
        more: dict[str, str] = {}
        while True:
            try:
                answer = await self.call("GET", path, prefix=place.key, **more)
            except FileNotFoundError as error:
                raise StoreError(Trouble.NO_BUCKET, place.bucket) from error
            page = json.loads(answer.content)
            found += [str(one["name"]) for one in page.get("items", [])]
            if not page.get("nextPageToken"):
                return found
            more = {"pageToken": str(page["nextPageToken"])}

    async def remove(self, place: Place) -> None:
        """Its present generation."""
        await self.call("DELETE", f"b/{_part(place.bucket)}/o/{_part(place.key)}")

    def upload(self, place: Place) -> MultipartUpload:
        """A resumable upload."""
        return _GCSUpload(self, place, self._config.kms_key_name)

    async def call(self, method: str, path: str, **named: object) -> "_Answer":
        """One request of the JSON interface, without gcsfs's own attempts.

        A path that begins with a slash is the server's; others are the interface's.
        """
        files = self._files
        if path.startswith("/"):
            path = f"{files._location}{path}"  # noqa: SLF001 -- no public name
        once = type(files)._request.__wrapped__  # noqa: SLF001 -- no public name
        status, headers, _, content = await once(files, method, path, **named)
        return _Answer(status, headers, content)

    async def _found(self, place: Place, path: str) -> Any:  # noqa: ANN401 -- a JSON resource
        """A resource; where it is missing, whether the bucket is."""
        try:
            answer = await self.call("GET", path)
        except FileNotFoundError as error:
            try:
                await self.call("GET", f"b/{_part(place.bucket)}")
            except FileNotFoundError:
                raise StoreError(Trouble.NO_BUCKET, place.bucket) from error
            except OSError:
                pass  # who may not see the bucket may still see its objects
            raise
        return json.loads(answer.content)

    def understood(self, error: BaseException) -> StoreError:
        """By the status that was answered, else by the kind of the library's error."""
        if isinstance(error, StoreError):
            return error
        return StoreError(_by_answer(error) or _WORDS.of_kind(error), _said(error))


class _GCSUpload:
    """One session; what it holds becomes the object with its last chunk, else vanishes in a week."""

    def __init__(self, store: GCSStore, place: Place, kms_key_name: str | None) -> None:
        self._store = store
        self._place = place
        self._key = {} if kms_key_name is None else {"kmsKeyName": kms_key_name}
        self._session = ""
        self._sent = 0
        self._unanswered = False
        self._last = b""

    async def begin(self) -> None:
        try:
            answer = await self._store.call(
                "POST",
                f"/upload/storage/v1/b/{_part(self._place.bucket)}/o",
                uploadType="resumable",
                name=self._place.key,
                json={"name": self._place.key},
                headers={"X-Upload-Content-Type": "application/octet-stream"},
                **self._key,
            )
        except FileNotFoundError as error:
            raise StoreError(Trouble.NO_BUCKET, self._place.bucket) from error
        self._session = str(answer.headers["Location"])

    async def add(self, number: int, part: bytes, *, last: bool) -> None:
        """The last part waits for `complete`, since nothing is visible before it."""
        del number
        if last:
            self._last = part
            return
        await self._send(part, end="*")
        self._sent += len(part)

    async def complete(self) -> None:
        await self._send(self._last, end=str(self._sent + len(self._last)))

    async def abort(self) -> None:
        await self._store.call("DELETE", self._session, headers={"Content-Length": "0"})

    async def _send(self, part: bytes, *, end: str) -> None:
        """A chunk at its place; what the store has already is not sent again, what it left is."""
        first, last = self._sent, self._sent + len(part)
        if self._unanswered:
            answer = await self._post(b"", f"*/{end}")
            if answer.status != _INCOMPLETE:
                return
            first = max(first, _kept(answer))
        while first < last:
            self._unanswered = True
            rest = part[first - self._sent :]
            answer = await self._post(rest, f"{first}-{last - 1}/{end}")
            self._unanswered = False
            if answer.status != _INCOMPLETE:
                return
            if _kept(answer) <= first:
                raise StoreError(Trouble.CUT, f"nothing was kept of {len(rest):,} bytes")
            first = _kept(answer)
        if end != "*":
            raise StoreError(Trouble.CUT, "all bytes were kept, but the object is not there yet")

    async def _post(self, part: bytes, span: str) -> _Answer:
        try:
            return await self._store.call(
                "POST",  # as good as PUT, which aiohttp would send again by itself
                self._session,
                data=io.BytesIO(part) if part else None,
                headers={"Content-Range": f"bytes {span}", "Content-Length": str(len(part))},
            )
        except FileNotFoundError as error:
            raise StoreError(Trouble.UNSURE, "its session is not known any more") from error


def _kept(answer: _Answer) -> int:
    """How many bytes the store has of the session's."""
    span = answer.headers.get("Range")  # none where it has none
    return 0 if span is None else int(span.rpartition("-")[2]) + 1


def _part(text: str) -> str:
    return quote(text, safe="")


def _by_answer(error: BaseException) -> Trouble | None:
    """What the status means, as far as gcsfs lets it be seen."""
    if isinstance(error, FileNotFoundError):  # 404
        return Trouble.NO_OBJECT
    if isinstance(error, FileExistsError):  # 412
        return Trouble.CHANGED
    if isinstance(error, OSError) and str(error).startswith("Forbidden"):
        return Trouble.REFUSED
    status = _status(error)
    if status == _UNAUTHORIZED:
        return Trouble.CREDENTIALS
    return Trouble.BUSY if status in _BUSY else None


def _status(error: BaseException) -> int | None:
    code = getattr(error, "code", None)
    return int(code) if isinstance(code, int | str) and str(code).isdigit() else None


def _said(error: BaseException) -> str:
    """The store's words, without the path that gcsfs puts before them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith(("Forbidden:", "Bad Request:")):
        return lines[1]
    return first_line(error)


ADAPTERS = ObjectAdapters(lambda data: Stores(lambda: GCSStore(data.gcs), data.gcs))
