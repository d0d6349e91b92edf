"""What an object store has to offer, and how it is asked: bounded, tried again, its errors worded."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar, runtime_checkable

from lodestar.adapters.objects.errors import StoreError, Subject, Trouble, worded
from lodestar.adapters.objects.places import Place
from lodestar.errors import LodestarError, choices
from lodestar.settings.stores import Transfer

__all__ = ["Asking", "LeavesParts", "MultipartUpload", "ObjectInfo", "ObjectStore"]

P = ParamSpec("P")
T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds, before the second attempt and at most


@dataclass(frozen=True)
class ObjectInfo:
    """One version of an object: its length in bytes, and what changes with every version."""

    size: int
    version: str


class MultipartUpload(Protocol):
    """Parts that become an object all at once."""

    async def begin(self) -> None:
        """Open it; nothing is visible."""
        ...

    async def add(self, number: int, part: bytes, *, last: bool) -> None:
        """Send part `number`, from 0; again where the answer was lost."""
        ...

    async def complete(self) -> None:
        """Make the parts the object, in place of what was there."""
        ...

    async def abort(self) -> None:
        """Drop the parts."""
        ...


@runtime_checkable
class LeavesParts(Protocol):
    """An upload of a store that keeps, and charges for, the parts of writers that were killed."""

    async def end_abandoned(self, *, below: str | None = None) -> int:
        """End the same user's uploads to which nothing was added for a day; how many.

        They are those of the object that this one, which has begun, is for; or of all objects of rows
        whose keys begin with `below`.
        """
        ...


class ObjectStore(Protocol):
    """One store, through its fsspec file system. Its coroutines run in the loop given to `open`."""

    name: str
    bucket: str
    credentials_hint: str
    secrets: tuple[str, ...]

    async def open(self) -> None:
        """Make the client; asks nobody yet."""
        ...

    async def close(self) -> None:
        """Close connections."""
        ...

    async def info(self, place: Place) -> ObjectInfo:
        """The object's present version."""
        ...

    async def fetch(self, place: Place, info: ObjectInfo, start: int, end: int) -> bytes:
        """The bytes `start` to `end` of that version; of another one where the store cannot tell."""
        ...

    async def names(self, place: Place) -> list[str]:
        """Some of the keys in the same folder."""
        ...

    async def keys(self, place: Place) -> list[str]:
        """All keys that begin as the place's does, in whatever folders below."""
        ...

    async def remove(self, place: Place) -> None:
        """Remove the object."""
        ...

    def upload(self, place: Place) -> MultipartUpload:
        """An upload that has not begun."""
        ...

    def understood(self, error: BaseException) -> StoreError:
        """What an error of the library means."""
        ...


class Asking:
    """Asks one store from outside of its event loop, again where that may help."""

    def __init__(self, store: ObjectStore, transfer: Transfer) -> None:
        self.store = store
        self._attempts = transfer.attempts
        self._tasks: set[asyncio.Task[Any] | None] = set()

    def ask(
        self, place: Place, asked: Callable[P, Awaitable[T]], *args: P.args, **named: P.kwargs
    ) -> T:
        """Run a coroutine of the store to its end.

        Raises:
            LodestarError: it failed for good, or as often as the config allows.
        """
        try:
            return self.tried(asked, *args, **named)
        except StoreError as error:
            raise self.worded(place, error) from error.__cause__

    def tried(self, asked: Callable[P, Awaitable[T]], *args: P.args, **named: P.kwargs) -> T:
        """As `ask`, with the error as it was understood."""
        from fsspec.asyn import get_loop, sync

        answer: T = sync(get_loop(), self._answered, asked, *args, **named)
        return answer

    def begin(
        self, asked: Callable[P, Awaitable[T]], *args: P.args, **named: P.kwargs
    ) -> Future[T]:
        """Run a coroutine of the store beside others; `awaited` gives what comes of it."""
        from fsspec.asyn import get_loop

        running = self._running(asked, *args, **named)
        return asyncio.run_coroutine_threadsafe(running, get_loop())

    def awaited(self, place: Place, begun: Future[T]) -> T:
        """The answer to what was begun.

        Raises:
            LodestarError: it failed for good, or as often as the config allows.
        """
        try:
            return begun.result()
        except StoreError as error:
            raise self.worded(place, error) from error.__cause__

    def leave(self) -> None:
        """Cancel all that was begun and is under way still, and wait until it is over."""
        from fsspec.asyn import get_loop, sync

        sync(get_loop(), self._cancelled)

    async def _answered(
        self, asked: Callable[P, Awaitable[T]], *args: P.args, **named: P.kwargs
    ) -> T:
        for attempt in range(self._attempts):
            try:
                return await asked(*args, **named)
            except Exception as error:
                problem = self.store.understood(error)
                if attempt + 1 == self._attempts or not problem.trouble.passes:
                    raise problem from error
            # Full jitter: those that failed together do not come back together.
            most = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
            await asyncio.sleep(random.uniform(0, most))  # noqa: S311 -- no secret
        raise AssertionError("there is at least one attempt")

    async def _running(
        self, asked: Callable[P, Awaitable[T]], *args: P.args, **named: P.kwargs
    ) -> T:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            return await self._answered(asked, *args, **named)
        finally:
            self._tasks.discard(task)

    async def _cancelled(self) -> None:
        tasks = {task for task in self._tasks if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def worded(self, place: Place, error: StoreError) -> LodestarError:
        """The error as the user meets it; a missing object with the near names."""
        store = self.store
        subject = Subject(
            store.name,
            store.bucket,
            place.bucket,
            place.uri,
            store.credentials_hint,
            self._attempts,
            store.secrets,
        )
        near = self._near(place) if error.trouble is Trouble.NO_OBJECT else ""
        return worded(error, subject, near=near)

    def _near(self, place: Place) -> str:
        """What else is there; a list that is refused is no reason to say less about the object."""
        try:
            names = self.tried(self.store.names, place)
        except StoreError:
            return "see the name for a misspelling; what else is there could not be listed"
        return choices(place.key, names)
