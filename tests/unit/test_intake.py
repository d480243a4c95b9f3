"""Taking turns, and sending away whoever would stand behind too much work."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from flywheel.serve.intake import LINE, SLICE, Intake
from flywheel.serve.refusals import Refusal


def together(intake: Intake, many: int) -> Coroutine[Any, Any, list[Any]]:
    """Ask for so many turns at once; each is None, or why there is none."""
    return asyncio.gather(*(intake.turn("rank") for _ in range(many)), return_exceptions=True)  # type: ignore[return-value]


def test_a_turn_that_was_interrupted_sends_nobody_away() -> None:
    async def scene() -> None:
        intake = Intake()
        intake.took("rank", 0.25)
        assert not any(await together(intake, 15))

    asyncio.run(scene())


def test_slow_turns_do_not_close_the_door_for_good() -> None:
    async def scene() -> None:
        intake = Intake()
        for _ in range(100):
            intake.took("rank", 10.0)
        for _ in range(30):
            await intake.turn("rank")
            intake.took("rank", 0.001)

    asyncio.run(scene())


def test_a_line_that_was_worked_off_is_forgotten() -> None:
    async def scene() -> None:
        intake = Intake()
        for _ in range(30):
            assert not any(await together(intake, 20))

    asyncio.run(scene())


def test_whoever_comes_together_waits_for_the_next_pass_of_the_loop() -> None:
    async def scene() -> list[int]:
        intake, passes, seen = Intake(), 0, []
        for _ in range(50):
            intake.took("rank", 0.6 * SLICE)

        async def ask() -> None:
            await intake.turn("rank")
            intake.took("rank", 0.6 * SLICE)
            seen.append(passes)

        asked = [asyncio.ensure_future(ask()) for _ in range(6)]
        while not all(task.done() for task in asked):
            passes += 1
            await asyncio.sleep(0)
        return seen

    seen = asyncio.run(scene())
    assert sorted(seen) == seen
    assert len(set(seen)) >= 3


def test_a_line_of_more_work_than_can_be_done_soon_is_not_joined() -> None:
    async def scene() -> tuple[int, int]:
        intake = Intake()
        for _ in range(50):
            intake.took("rank", 0.01)
        asked = [asyncio.ensure_future(intake.turn("rank")) for _ in range(20)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        refused = [one for one in done if isinstance(one, Refusal)]
        assert {one.status for one in refused} == {503}
        return len(refused), intake.shed

    refused, shed = asyncio.run(scene())
    assert refused == shed
    assert 20 - refused == pytest.approx(LINE / 0.01 + 2, abs=1)


def test_whoever_leaves_the_line_takes_nobodys_turn() -> None:
    async def scene() -> None:
        intake = Intake()
        for _ in range(50):
            intake.took("rank", 0.002)
        asked = [asyncio.ensure_future(intake.turn("rank")) for _ in range(8)]
        await asyncio.sleep(0)
        for task in asked[2:6]:
            task.cancel()
        await asyncio.wait_for(asyncio.gather(asked[6], asked[7]), 1)

    asyncio.run(scene())


def test_whoever_was_let_in_is_not_sent_away_later() -> None:
    async def scene() -> None:
        intake = Intake()
        for _ in range(50):
            intake.took("rank", 0.1)
        await asyncio.gather(*(intake.wait("rank") for _ in range(30)))

    asyncio.run(scene())


def test_small_events_do_not_make_ranking_look_cheap() -> None:
    async def scene() -> int:
        intake = Intake()
        for _ in range(50):
            intake.took("rank", 0.002)
            intake.took("event", 0.00001)
        asked = [asyncio.ensure_future(intake.turn("rank")) for _ in range(10)]
        await asyncio.sleep(0)
        done = sum(task.done() for task in asked)
        await asyncio.gather(*asked)
        return done

    assert asyncio.run(scene()) == 3
