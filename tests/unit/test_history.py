"""Who the ancestor is and how often an exam was used, as the generations' own records tell it."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flywheel.learn import history
from flywheel.records import Comparison, Generation, Interval

SETTINGS = ("config", "recipe")
EXAM = ("w3", "w4", "w5", "w6")


def generation(number, verdict="promote", **given):
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
    tags = {"recipe": "recipe"} | given.pop("tags", {})
    plain = Generation(
        number, at, 0, 0, 0, {}, {}, None, verdict, "", 0, ("w1", "w2"), ("w3", "w6"), "", "", "config", 0, "", "", "",
        tags=tags,
    )  # fmt: skip
    return replace(plain, **given)


def compared(low):
    return Comparison("auc", 0.8, 0.79, Interval(0.01, low, 0.02, 0.005, 1000, 100))


def test_the_baseline_is_its_own_ancestor():
    assert history.ancestor(None) == 0


def test_a_champion_that_was_shown_to_beat_the_ancestor_is_the_ancestor():
    assert history.ancestor(generation(4, tags=history.tags(compared(0.001), 2))) == 4


@pytest.mark.parametrize("low", [0.0, -0.001, math.nan])
def test_a_champion_that_was_not_leaves_it_where_it_was(low):
    assert history.ancestor(generation(4, tags=history.tags(compared(low), 2))) == 2


def test_a_champion_chosen_by_a_person_starts_the_wheel_anew():
    for verdict in ("keep", "reject"):
        assert history.ancestor(generation(4, verdict, tags=history.tags(None, 2))) == 4


def test_a_champion_from_before_ancestors_were_recorded_is_its_own():
    assert history.ancestor(generation(4)) == 4


def test_an_ancestor_that_did_not_sit_was_not_beaten():
    assert history.tags(None, 2) == {"ancestor": "2", "ancestor_beaten": "no"}


def test_exams_tell_whom_each_generation_met():
    difference = compared(0.001).difference
    made = [generation(1, examined_against=0, difference=difference), generation(2, examined_against=1)]
    assert [(one.generation, one.against, one.difference) for one in history.exams(made)] == [(1, 0, difference)]


@pytest.mark.parametrize(
    ("given", "uses"),
    [
        ({}, 0),  # the same settings: only time has passed
        ({"config": "other"}, 1),
        ({"tags": {"recipe": "other"}}, 1),
        ({"config": "other", "exam_windows": ("w1", "w4")}, 1),  # half of the windows
        ({"config": "other", "exam_windows": ("w1", "w3")}, 0),
        ({"config": "other", "exam_windows": ("w7", "w9")}, 0),
    ],
)
def test_an_exam_is_used_by_decisions_of_other_settings_on_half_of_its_windows(given, uses):
    assert history.uses([generation(1, **given)], EXAM, SETTINGS) == uses


def test_uses_add_up():
    made = [generation(n, config=f"tried {n}") for n in range(3)]
    assert history.uses(made, EXAM, SETTINGS) == 3
