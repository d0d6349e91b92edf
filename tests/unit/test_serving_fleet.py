"""Which version answers a row, what is remembered of it, and that a shadow changes nothing."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.served_versions import Scorer, lane, row, version, wine

from lodestar.errors import DataError
from lodestar.schema import Column
from lodestar.serving.fleet import Fleet, Share
from lodestar.serving.problems import ProblemError
from lodestar.serving.request_model import RequestField, RequestModel
from lodestar.serving.scoring import Row
from lodestar.serving.shadow import WAITING_ROWS, Shadow
from lodestar.serving.telemetry import Telemetry, Unheard
from lodestar.serving.version import RowAnswer

ROOT = Path(__file__).resolve().parents[2]
SHARES = """
from tests.unit.test_serving_fleet import picked
print(picked(20.0))
"""


def request(*keys: str) -> RequestModel:
    """Two possible keys and a value."""
    kinds = {"user": "string", "shop": "int", "amount": "float"}
    return RequestModel(
        [
            RequestField(Column(name, kind, nullable=True), False, True, key=name in keys)
            for name, kind in kinds.items()
        ]
    )


def picked(percent: float) -> list[int]:
    """The entities of 100 that a share has."""
    share = Share(request("user", "shop"), percent)
    return [at for at in range(100) if share.has((f"user-{at}", at % 7, 0.5))]


def test_an_entity_stays_where_it_is_whatever_else_is_asked() -> None:
    share = Share(request("user", "shop"), 30)
    for at in range(200):
        first = share.has((f"user-{at}", at, 0.0))
        assert all(share.has((f"user-{at}", at, amount)) is first for amount in (1.5, None, -3.0))


def test_another_process_picks_the_same_entities() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHARES],
        cwd=ROOT,
        env={"PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == str(picked(20.0))


def test_the_picked_entities_are_these_for_ever() -> None:
    """A change of the hash would give running experiments other entities."""
    assert picked(20.0) == [13, 18, 24, 27, 55, 65, 78, 80, 99]


def test_a_larger_share_keeps_the_entities_of_a_smaller_one() -> None:
    assert set(picked(10.0)) < set(picked(30.0)) < set(picked(100.0)) == set(range(100))
    assert picked(0.0) == []


@pytest.mark.parametrize("percent", [1.0, 10.0, 33.3, 50.0])
@pytest.mark.parametrize(
    "entity",
    [
        lambda at: (f"user-{at}", None, 1.0),
        lambda at: (f"U{at:08d}", 3, 1.0),
        lambda at: (None, at, 1.0),
        lambda at: ("one", at * 1_000, 1.0),
    ],
)
def test_a_share_is_as_large_as_asked(entity: Callable[[int], Row], percent: float) -> None:
    share = Share(request("user", "shop"), percent)
    found = sum(share.has(entity(at)) for at in range(20_000))
    # Four standard deviations of a fair draw.
    allowed = 4 * (percent / 100 * (1 - percent / 100) / 20_000) ** 0.5 * 100
    assert found / 200 == pytest.approx(percent, abs=allowed)


@pytest.mark.parametrize("keys", [(), ("user",)])
def test_rows_without_a_key_are_spread_by_all_of_their_fields(keys: tuple[str, ...]) -> None:
    share = Share(request(*keys), 50)
    found = sum(share.has((None, 1, float(at))) for at in range(2_000))
    assert 850 < found < 1_150


def asked(fleet: Fleet, count: int) -> list[tuple[str, RowAnswer | ProblemError]]:
    """Ask rows one by one and at the same time; who answered, and what."""

    async def ask() -> list[tuple[str, RowAnswer | ProblemError]]:
        found = await asyncio.gather(*[fleet.ask(row(at)) for at in range(count)])
        return [(answered.version.run.run_name, reply) for answered, reply in found]

    return asyncio.run(ask())


def test_each_row_is_answered_wholly_by_the_version_that_its_entity_belongs_to() -> None:
    share = Share(RequestModel.of(wine(), (), joined=False), 40)
    fleet = Fleet(lane("a", Scorer(0.1)), challenger=lane("b", Scorer(0.9)), share=share)
    found = asked(fleet, 300)
    for at, (name, reply) in enumerate(found):
        assert isinstance(reply, RowAnswer)
        assert name == ("b" if share.has(row(at)) else "a")
        assert reply.value == (0.9 if name == "b" else 0.1)
    names = [name for name, _ in found]
    assert 80 < names.count("b") < 160


def test_a_batch_keeps_its_order_over_both_versions() -> None:
    share = Share(RequestModel.of(wine(), (), joined=False), 40)
    champion = lane("a", Scorer(lambda row: row[1] / 1_000))
    challenger = lane("b", Scorer(lambda row: row[1] / 1_000 + 0.5))
    fleet = Fleet(champion, challenger=challenger, share=share)
    found = asyncio.run(fleet.ask_all([row(at) for at in range(300)]))
    for at, (answered, reply) in enumerate(found):
        assert isinstance(reply, RowAnswer)
        assert reply.value == at / 1_000 + (0.5 if answered is challenger else 0)


def test_what_was_asked_before_a_swap_is_answered_by_the_one_that_was_asked() -> None:
    async def swapped() -> list[str]:
        fleet = Fleet(lane("a", Scorer(0.1)))
        before = [asyncio.ensure_future(fleet.ask(row(at))) for at in range(10)]
        await asyncio.sleep(0)
        fleet.champion = lane("b", Scorer(0.9))
        after = [asyncio.ensure_future(fleet.ask(row(at))) for at in range(10)]
        found = [await one for one in (*before, *after)]
        for answered, reply in found:
            assert isinstance(reply, RowAnswer)
            assert reply.value == (0.1 if answered.version.run.run_name == "a" else 0.9)
        return [answered.version.run.run_name for answered, _ in found]

    assert asyncio.run(swapped()) == ["a"] * 10 + ["b"] * 10


def test_what_is_answered_and_what_is_not_is_remembered() -> None:
    fleet = Fleet(lane("a", Scorer(lambda row: row[1] / 10)))
    asked(fleet, 10)
    window = fleet.champion.recent.window()
    assert (window.answers, window.failures) == (10, 0)
    assert sorted(window.values) == [at / 10 for at in range(10)]
    assert len(window.seconds) == 10
    refusing = Fleet(lane("b", Scorer(0.5, refuses=True)))
    asyncio.run(refusing.ask_all([row(at) for at in range(7)]))
    window = refusing.champion.recent.window()
    assert (window.answers, window.failures, len(window.failed)) == (7, 7, 7)
    assert not window.values


def test_what_the_online_store_did_not_tell_is_remembered_apart() -> None:
    def gone(row: Row) -> float:
        raise ProblemError(503, "online-store-unavailable", "")

    async def ask() -> Fleet:
        fleet = Fleet(lane("a", Scorer(gone)))
        for asked in (fleet.ask(row(1)), fleet.ask_all([row(2), row(3)])):
            with pytest.raises(ProblemError):
                await asked
        return fleet

    window = asyncio.run(ask()).champion.recent.window()
    assert (window.answers, window.failures, window.unread) == (3, 0, 3)
    assert [asked[0] for asked in window.not_read] == ["wine-1", "wine-2", "wine-3"]


def test_an_answer_that_was_too_late_is_a_failure() -> None:
    def broken(row: Row) -> float:
        raise ZeroDivisionError

    async def ask() -> Fleet:
        fleet = Fleet(lane("a", Scorer(broken)))
        task = asyncio.ensure_future(fleet.ask(row(1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ZeroDivisionError):
            await fleet.ask(row(2))
        with pytest.raises(ZeroDivisionError):
            await fleet.ask_all([row(3), row(4)])
        return fleet

    window = asyncio.run(ask()).champion.recent.window()
    assert (window.answers, window.failures) == (4, 4)
    assert [failed[0] for failed in window.failed] == ["wine-1", "wine-2", "wine-3", "wine-4"]
    assert len(window.seconds) == 3


def shadowed(
    champion: Scorer, shadow: Scorer, rows: int, *, at_once: bool = False
) -> tuple[Shadow, Telemetry, list[float]]:
    """Ask a fleet with a shadow, and wait until the shadow has nothing to do."""
    telemetry = Telemetry()

    async def ask() -> tuple[Shadow, list[float]]:
        beside = Shadow(version("s", shadow, Unheard()), telemetry)
        fleet = Fleet(lane("a", champion), shadow=beside)
        questions = [row(at) for at in range(rows)]
        if at_once:
            found = await fleet.ask_all(questions)
        else:
            found = [await fleet.ask(question) for question in questions]
        values = [reply.value for _, reply in found if isinstance(reply, RowAnswer)]
        async with asyncio.timeout(20):
            while not beside.idle:  # noqa: ASYNC110 -- it tells nobody
                await asyncio.sleep(0.01)
        return beside, values

    beside, values = asyncio.run(ask())
    return beside, telemetry, values


def metric(telemetry: Telemetry, name: str) -> float:
    """A line of what Prometheus reads."""
    lines = telemetry.render()[0].decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


def test_a_shadow_that_says_the_same_is_counted_so() -> None:
    beside, telemetry, values = shadowed(Scorer(0.25), Scorer(0.25), 40)
    assert values == [0.25] * 40
    assert dict(beside.compared.rows) == {"same": 40, "different": 0, "failed": 0, "dropped": 0}
    assert metric(telemetry, 'lodestar_shadow_rows_total{result="same"}') == 40
    assert metric(telemetry, 'lodestar_shadow_difference_bucket{le="0.0"}') == 40


def test_differences_are_measured_and_never_returned() -> None:
    beside, telemetry, values = shadowed(Scorer(0.25), Scorer(lambda row: 0.25 + row[1] / 100), 30)
    assert values == [0.25] * 30
    assert beside.compared.rows["same"] == 1
    assert beside.compared.rows["different"] == 29
    assert beside.compared.largest_difference == pytest.approx(0.29)
    assert metric(telemetry, 'lodestar_shadow_difference_bucket{le="0.1"}') in {10, 11}
    assert metric(telemetry, "lodestar_shadow_difference_count") == 30


def test_a_shadow_that_fails_disturbs_nobody() -> None:
    def broken(row: Row) -> float:
        raise ZeroDivisionError

    for shadow in (Scorer(broken), Scorer(0.5, refuses=True)):
        beside, telemetry, values = shadowed(Scorer(0.25), shadow, 20)
        assert values == [0.25] * 20
        assert beside.compared.rows["failed"] == 20
        assert metric(telemetry, 'lodestar_shadow_rows_total{result="failed"}') == 20


def test_the_answer_is_given_before_the_shadow_is_asked() -> None:
    shadow = Scorer(0.5)

    async def ask() -> None:
        fleet = Fleet(
            lane("a", Scorer(0.25)), shadow=Shadow(version("s", shadow, Unheard()), Telemetry())
        )
        await fleet.ask(row(1))
        assert not shadow.scored

    asyncio.run(ask())


def test_a_shadow_that_is_too_slow_drops_rows_and_keeps_a_bounded_number() -> None:
    rows = WAITING_ROWS + 500
    beside, telemetry, values = shadowed(Scorer(0.25), Scorer(0.25), rows, at_once=True)
    assert len(values) == rows
    assert beside.compared.rows["dropped"] == 500
    assert beside.compared.rows["same"] == WAITING_ROWS
    assert metric(telemetry, 'lodestar_shadow_rows_total{result="dropped"}') == 500


def test_what_the_champion_refused_is_not_asked() -> None:
    beside, _, _ = shadowed(Scorer(0.25, refuses=True), Scorer(0.25), 10)
    assert sum(beside.compared.rows.values()) == 0


def test_nothing_of_the_shadow_is_in_the_figures_of_those_who_answer() -> None:
    _, telemetry, _ = shadowed(Scorer(0.25), Scorer(0.9), 10)
    assert metric(telemetry, "lodestar_batch_rows_count") == 0, "the champion has its own telemetry"


def test_a_shadow_can_be_closed_while_it_has_work_to_do() -> None:
    async def close() -> int:
        beside = Shadow(version("s", Scorer(0.5), Unheard()), Telemetry())
        fleet = Fleet(lane("a", Scorer(0.25)), shadow=beside)
        await fleet.ask_all([row(at) for at in range(500)])
        await asyncio.sleep(0)
        await beside.close()
        return sum(beside.compared.rows.values())

    assert asyncio.run(close()) < 500


def test_a_row_that_cannot_be_computed_with_spoils_no_other_row_of_its_batch() -> None:
    def share(one: Row) -> float:
        if one[-1] == 2.0:
            raise DataError("the estimator refuses it")
        return 0.5

    answers = asyncio.run(version("a", Scorer(share)).answer([row(at) for at in range(5)]))
    wrong = [at for at, answer in enumerate(answers) if isinstance(answer, ProblemError)]
    assert wrong == [2]
    assert isinstance(answers[2], ProblemError)
    assert (answers[2].status, answers[2].kind) == (422, "invalid-value")
