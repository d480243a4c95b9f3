"""The instants that [schedule] means: in UTC, where no hour comes twice."""

import itertools
import tomllib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flywheel.config import parse
from flywheel.errors import ConfigError
from flywheel.scaffold import render
from flywheel.schedule import Schedule, grown
from tests.unit.test_scaffold import SMALL


def config(**schedule: Any) -> Schedule:
    return parse(SMALL | {"schedule": schedule}).schedule


def test_a_night_has_one_turn_whatever_people_do_to_their_clocks() -> None:
    at = datetime(2026, 3, 27, tzinfo=UTC)
    turns = []
    while len(turns) < 240:
        found = config().next("turn", at)
        assert found is not None
        turns.append(at := found)
    assert {(t.hour, t.minute) for t in turns} == {(3, 0)}
    assert {b - a for a, b in itertools.pairwise(turns)} == {timedelta(days=1)}


def test_what_is_due_now_is_not_next() -> None:
    due = datetime(2026, 3, 27, 5, tzinfo=UTC)
    assert config().next("collect", due) == due + timedelta(hours=1)
    assert config().next("collect", due - timedelta(microseconds=1)) == due


def test_never_leaves_it_to_people() -> None:
    off = config(collect="never", turn="never", growth=0)
    assert (off.every("collect"), off.next("turn", datetime.now(UTC))) == (None, None)
    assert off.every("backfill") is None


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    from flywheel.config import load

    (tmp_path / "flywheel.toml").write_text(render(parse(SMALL | {"schedule": {"turn": "7d"}})))
    monkeypatch.setenv("FLYWHEEL_SCHEDULE__TURN", "2d")
    assert load(tmp_path).schedule.turn == timedelta(days=2)


@pytest.mark.parametrize("schedule", [{}, {"collect": "never", "at": "04:30", "growth": 0.5, "turn": "7d"}])
def test_what_is_written_is_read_back(schedule: dict[str, Any]) -> None:
    made = parse(SMALL | {"schedule": schedule})
    assert parse(tomllib.loads(render(made))) == made


@pytest.mark.parametrize("wrong", [{"collect": "30s"}, {"turn": "often"}, {"growth": -1}, {"at": "25:00"}])
def test_a_schedule_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^schedule\.{next(iter(wrong))} cannot be read"):
        config(**wrong)


def test_when_a_generation_is_made_does_not_change_it() -> None:
    assert parse(SMALL | {"schedule": {"turn": "7d"}}).fingerprint() == parse(SMALL).fingerprint()


def test_growth_is_of_the_rows_that_the_last_generation_had() -> None:
    assert grown(1250, 1000) == 0.25
    assert grown(1, 0) == float("inf")
