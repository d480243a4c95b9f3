"""What a canary has shown, and what follows; how often it is wrong: tests/benchmarks/canary_worlds.py."""

import math
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pytest

from flywheel import trial
from flywheel.measure.canary import judge, seen, step
from flywheel.records import Finding
from flywheel.trial import Answer, Canary

Answered = tuple[npt.NDArray[np.object_], npt.NDArray[np.float64], npt.NDArray[np.bool_]]
NOW = datetime(2026, 1, 5, 6, tzinfo=UTC)


def rows(canary: float, champion: float, *, people: int = 400, each: int = 20, share: float = 0.3) -> Answered:
    """People of whom a share meets the canary, with as many rows each, and what is liked of them in each arm."""
    rng = np.random.default_rng(2)
    users = np.repeat([f"u{n}" for n in range(people)], each).astype(object)
    tried = np.repeat(np.arange(people) < share * people, each)
    return users, (rng.random(len(users)) < np.where(tried, canary, champion)).astype(float), tried


def judged(found: Answered, **given: float) -> Finding:
    return judge(seen(*found), **{"share": 0.3, "margin": 0.3, "confidence": 0.95} | given)


def test_no_worse_passes_harm_fails_and_little_says_nothing() -> None:
    assert judged(rows(0.4, 0.4)).status == "pass"
    assert judged(rows(0.1, 0.4)).status == "fail"
    assert judged(rows(0.4, 0.4, people=60, each=1)).status == "not enough evidence"
    assert "a loss beyond 30% is ruled out" in judged(rows(0.4, 0.4)).detail
    assert "a loss beyond 30% is shown" in judged(rows(0.1, 0.4)).detail


def test_nobody_is_no_evidence() -> None:
    nothing = np.empty(0, object), np.empty(0), np.empty(0, bool)
    assert judged(nothing).status == "not enough evidence"
    users, labels, tried = rows(0.4, 0.4)
    assert judged((users, np.full(len(labels), math.nan), tried)).status == "not enough evidence"


def test_arms_of_other_sizes_than_were_asked_for_are_no_fair_comparison() -> None:
    found = judged(rows(0.4, 0.4, people=1000, share=0.1))
    assert found.status == "not enough evidence"
    assert "no fair comparison" in found.detail


def test_what_is_lost_may_be_negative_too() -> None:
    users, good, tried = rows(0.4, 0.4)
    bad = rows(0.1, 0.4)[1]
    assert judged((users, good - 2, tried)).status == "pass"
    assert judged((users, 2 * bad - 1, tried), margin=0.05).status == "fail"


def test_whom_both_served_are_the_canarys() -> None:
    users = np.array(["a", "a", "a", "b", "c"], object)
    labels, tried = np.array([1.0, math.nan, 0.0, 1.0, math.nan]), np.array([True, True, False, False, False])
    found = seen(users, labels, tried)
    assert (found.users, found.of) == (1, 3)
    assert [list(map(float, arm)) for arm in (*found.rewards, *found.rows)] == [[1], [1], [1], [1]]


@pytest.mark.parametrize(
    ("status", "timed_out", "then"),
    [
        ("pass", False, "promote"),
        ("pass", True, "promote"),
        ("fail", False, "refuse"),
        ("fail", True, "refuse"),
        ("not enough evidence", False, "wait"),
        ("not enough evidence", True, "refuse"),
    ],
)
def test_what_follows(status: str, timed_out: bool, then: str) -> None:
    assert step(Finding("canary", status, 0, 0, 1, ""), timed_out=timed_out) == then  # type: ignore[arg-type]


def test_a_trial_is_read_as_it_was_written() -> None:
    answer = Answer(True, "ana", NOW, "looks “right”")
    unsure = Canary(NOW, 0.1, Finding("canary", "not enough evidence", math.nan, math.nan, 3, "three of them"))
    tags = {trial.ASKED: NOW.isoformat(), trial.ANSWER: trial.written(answer), trial.CANARY: trial.written(unsure)}
    told = trial.read(tags)
    assert (told.asked, told.answer) == (NOW, answer)
    assert told.canary is not None
    assert told.canary.finding is not None
    assert math.isnan(told.canary.finding.value)
    assert trial.read({trial.CANARY: trial.written(Canary(NOW, 0.1))}).canary == Canary(NOW, 0.1)
    assert trial.read({}) == trial.Trial()


def test_a_trial_in_words() -> None:
    assert (
        trial.said(Answer(False, "ana", NOW, "not this week")) == "refused by ana on 2026-01-05 06:00Z: not this week"
    )
    assert trial.shown(Canary(NOW, 0.1)).endswith("no window of it has closed yet")
    assert "flywheel approve 7 --why" in trial.how_to(7, NOW)
