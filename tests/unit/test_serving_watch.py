"""When a new model gives way to the former one: decided from windows as they were recorded."""

import asyncio
from collections.abc import Sequence

import pytest

from lodestar.serving.recent import KEPT, KEPT_FAILED, Recent, Window
from lodestar.serving.scoring import Row
from lodestar.serving.watch import Breach, Judge, Watch
from lodestar.settings.serving import Rollback

LIMITS = Rollback(watch_seconds=60, window_seconds=10, requests=100, latency_p99_seconds=0.1)
SPREAD = [at / 1_000 for at in range(1_000)]
FAST = [0.001] * 1_000
FORMER = Window(1_000, 0, SPREAD, FAST)


def window(
    *,
    answers: int = 1_000,
    failures: int = 0,
    values: Sequence[float] = SPREAD,
    seconds: Sequence[float] = FAST,
) -> Window:
    return Window(answers, failures, values, seconds)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (window(), None),
        (window(failures=50), None),
        (window(failures=51), "errors"),
        (window(seconds=[*[0.001] * 990, *[5.0] * 9]), None),
        (window(seconds=[*[0.001] * 980, *[5.0] * 20]), "latency"),
        (window(values=[value / 10 for value in SPREAD]), "predictions"),
        (window(values=[0.5] * 1_000), "predictions"),
        (window(values=[0.5] * 99), None),
        (window(values=[]), None),
        (window(seconds=[]), None),
        (window(failures=900, values=[0.5] * 100, seconds=[9.0]), "errors"),
    ],
)
def test_a_recorded_window_decides(found: Window, reason: str | None) -> None:
    judge = Judge(LIMITS, FORMER)
    breach = judge.breach(judge.figures(found))
    assert (breach.reason if breach else None) == reason


def test_a_breach_says_how_far_the_limit_was_passed() -> None:
    judge = Judge(LIMITS, FORMER)
    breach = judge.breach(judge.figures(window(failures=100)))
    assert breach == Breach("errors", "10.0% of 1000 answers failed; at most 5.0% may")


def test_where_the_former_model_was_too_slow_as_well_only_a_slower_one_goes() -> None:
    judge = Judge(LIMITS, window(seconds=[0.4] * 1_000))
    assert judge.breach(judge.figures(window(seconds=[0.5] * 1_000))) is None
    slower = judge.breach(judge.figures(window(seconds=[0.7] * 1_000)))
    assert slower is not None
    assert slower.reason == "latency"


def test_predictions_are_not_judged_by_a_few_former_ones() -> None:
    judge = Judge(LIMITS, window(values=SPREAD[:99]))
    figures = judge.figures(window(values=[9.0] * 1_000))
    assert figures.prediction_psi is None
    assert judge.breach(figures) is None


class Asked:
    """Stands for the former model: it can answer rows below its limit."""

    def __init__(self, *, below: int) -> None:
        self.below = below
        self.rows: list[Row] = []

    async def __call__(self, rows: Sequence[Row]) -> int:
        self.rows += rows
        return sum(row[0] < self.below for row in rows)


def watched(former: Asked, recent: Recent, new: Asked | None = None) -> Watch:
    return Watch(LIMITS, FORMER, recent, former=former, new=new or Asked(below=0), now=0.0)


def answered(recent: Recent, count: int, *, failed: int = 0) -> None:
    for at in range(count):
        recent.answered(at * 37 % 1_000 / 1_000)
        recent.took(0.001)
    for at in range(failed):
        recent.failed((at,))


def look(watch: Watch, now: float) -> Breach | None:
    return asyncio.run(watch.look(now))


def test_a_window_lasts_its_time_and_its_requests() -> None:
    recent = Recent()
    watch = watched(Asked(below=1_000), recent)
    answered(recent, 99, failed=99)
    assert look(watch, 9.9) is None
    assert watch.windows == 0
    breach = look(watch, 10.1)
    assert breach is not None
    assert watch.windows == 1


def test_few_answers_are_judged_once_there_are_enough() -> None:
    recent = Recent()
    watch = watched(Asked(below=1_000), recent)
    answered(recent, 40, failed=40)
    assert look(watch, 11) is None
    answered(recent, 10, failed=10)
    breach = look(watch, 12)
    assert breach is not None
    assert breach.reason == "errors"


def test_each_window_is_judged_by_itself() -> None:
    recent = Recent()
    watch = watched(Asked(below=1_000), recent)
    answered(recent, 1_000)
    assert look(watch, 11) is None
    answered(recent, 80, failed=20)
    assert look(watch, 20) is None
    breach = look(watch, 21.1)
    assert breach is not None
    assert "20.0% of 100" in breach.words


def test_the_last_window_ends_with_the_watch() -> None:
    recent = Recent()
    limits = LIMITS.model_copy(update={"watch_seconds": 5.0})
    asked = Asked(below=1_000)
    watch = Watch(limits, FORMER, recent, former=asked, new=asked, now=0.0)
    answered(recent, 80, failed=20)
    assert look(watch, 5.0) is not None


def test_what_the_former_model_would_have_refused_too_is_not_held_against_the_new_one() -> None:
    recent, former = Recent(), Asked(below=0)
    watch = watched(former, recent)
    answered(recent, 100, failed=100)
    assert look(watch, 11) is None
    assert len(former.rows) == KEPT_FAILED
    assert watch.last is not None
    assert watch.last.error_rate == 0


def test_the_share_that_the_former_model_can_answer_counts() -> None:
    recent = Recent()
    # Of 50 rows kept it answers 10: 20 % of 50 % are 10 %, which is more than 5.
    watch = watched(Asked(below=60), recent)
    answered(recent, 100, failed=100)
    breach = look(watch, 11)
    assert breach is not None
    assert "10.0% of 200" in breach.words


@pytest.mark.parametrize(
    ("former", "new", "goes"), [(0, 0, False), (999, 999, False), (999, 0, True)]
)
def test_a_store_that_tells_nothing_counts_if_the_former_model_is_told_something(
    former: int, new: int, *, goes: bool
) -> None:
    """It is gone for both; it was gone, and is back; it is gone for the new model alone."""
    recent = Recent()
    watch = watched(Asked(below=former), recent, Asked(below=new))
    answered(recent, 100)
    for at in range(100):
        recent.unread((at,))
    breach = look(watch, 11)
    assert (breach is not None) is goes
    assert watch.last is not None
    assert watch.last.error_rate == (0.5 if goes else 0)


def test_a_slow_model_that_fails_where_the_former_does_too_still_goes_for_its_slowness() -> None:
    recent = Recent()
    watch = watched(Asked(below=0), recent)
    answered(recent, 100, failed=100)
    for _ in range(200):
        recent.took(3.0)
    breach = look(watch, 11)
    assert breach is not None
    assert breach.reason == "latency"


def test_memory_is_bounded_and_the_last_values_are_kept_over_windows() -> None:
    recent = Recent()
    answered(recent, 10_000, failed=500)
    assert len(recent.window().values) == len(recent.window().seconds) == KEPT
    assert recent.window().answers == 10_500
    assert len(recent.window().failed) == KEPT_FAILED
    recent.begin()
    answered(recent, 3)
    assert recent.window().values == [0.0, 0.037, 0.074]
    assert len(recent.all().values) == KEPT
