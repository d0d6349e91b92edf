"""A version that is asked what others have answered already; what it says is compared, never given."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lodestar.serving.problems import ProblemError
from lodestar.serving.scoring import Row
from lodestar.serving.version import RowAnswer, ServedVersion

__all__ = ["Compared", "Shadow", "ShadowWatch"]

WAITING_ROWS = 1_000
# Few at a time, so that no request waits long while the shadow has the event loop.
AT_ONCE = 32
RESULTS = ("same", "different", "failed", "dropped")


class ShadowWatch(Protocol):
    """Who counts what came of it."""

    def shadowed(self, result: str, rows: int = 1) -> None:
        """So many rows were the same, different, failed or dropped."""
        ...

    def shadow_differences(self, values: Sequence[float]) -> None:
        """How far the watched numbers of some rows lie from each other."""
        ...


@dataclass
class Compared:
    """Rows by what came of them in this process, and the largest difference of the watched number."""

    rows: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(RESULTS, 0)))
    largest_difference: float = 0.0


@dataclass
class Shadow:
    """Asks `version` rows and compares its answers with those that were given.

    `offer` takes no time and never fails. The rows are asked from the event loop's next tick on, one
    small batch after the other; where more than 1,000 wait, further ones are dropped and counted.
    """

    version: ServedVersion
    watch: ShadowWatch
    compared: Compared = field(default_factory=Compared)
    _waiting: list[tuple[Row, RowAnswer]] = field(default_factory=list)
    _task: "asyncio.Task[None] | None" = None

    def offer(self, row: Row, given: RowAnswer) -> None:
        """Compare the shadow's answer with one that was given, later."""
        if len(self._waiting) >= WAITING_ROWS:
            self._count("dropped", 1)
            return
        self._waiting.append((row, given))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._ask_on())

    @property
    def idle(self) -> bool:
        """Whether every row that was offered is compared."""
        return self._task is None

    async def close(self) -> None:
        """Ask no more, and let go of the version."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self.version.close()

    async def _ask_on(self) -> None:
        try:
            while self._waiting:
                some, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
                await self._compare(some)
                await asyncio.sleep(0)  # whoever came meanwhile is answered first
        finally:
            self._task = None

    async def _compare(self, asked: Sequence[tuple[Row, RowAnswer]]) -> None:
        try:
            told = await self.version.answer([row for row, _ in asked])
        except Exception:  # noqa: BLE001 -- an edge: whatever a shadow does, nobody else notices
            self._count("failed", len(asked))
            return
        differences: list[float] = []
        for (_, given), reply in zip(asked, told, strict=True):
            if isinstance(reply, ProblemError):
                self._count("failed", 1)
                continue
            differences.append(abs(reply.value - given.value))
            self._count("same" if _same(reply, given) else "different", 1)
        self.watch.shadow_differences(differences)
        finite = filter(math.isfinite, differences)
        self.compared.largest_difference = max(self.compared.largest_difference, *finite, 0.0)

    def _count(self, result: str, rows: int) -> None:
        self.compared.rows[result] += rows
        self.watch.shadowed(result, rows)


def _same(one: RowAnswer, other: RowAnswer) -> bool:
    """Whether all that is said is equal, to the last bit; NaN equals NaN."""
    return repr((one.prediction, one.probabilities)) == repr(
        (other.prediction, other.probabilities)
    )
