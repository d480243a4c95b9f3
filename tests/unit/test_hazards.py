"""What the wheel may harm, on lists made to harm or not to."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from flywheel.evidence import Hazard
from flywheel.measure import hazards

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
START = pd.Timestamp("2026-01-05", tz="UTC")
ITEMS, SLOTS, DAYS = 60, 4, 56


def rows(
    narrow: bool = False, starving: bool = False, held: int = 80, seed: int = 1, sure: tuple[float, float] = (0.5, 0.5)
) -> pd.DataFrame:
    """Lists of random items; the wheel's from a tenth of them if narrow, and without new ones if starving."""
    rng = np.random.default_rng(seed)
    users = held * 6
    visits = rng.poisson(8, users)
    user = np.repeat(np.arange(users), visits)
    day = rng.random(len(user)) * DAYS
    wheel = user >= held
    released = np.where(np.arange(ITEMS) < 40, -1.0, np.linspace(2, 20, ITEMS))
    order = rng.random((len(user), ITEMS))
    order[day[:, None] < released] = 9
    if narrow:
        order[wheel, 10:] += 1
    if starving:
        order[np.ix_(wheel, released > 0)] += 5
    shown = np.argsort(order, axis=1)[:, :SLOTS]
    propensity = np.where(rng.random((len(user), SLOTS)) < np.where(wheel, *sure)[:, None], 0.95, 0.3)
    return pd.DataFrame(
        {
            "user": np.repeat(user, SLOTS),
            "item": shown.ravel(),
            "request": np.repeat([f"r{n}" for n in range(len(user))], SLOTS),
            "ts": START + pd.to_timedelta(np.repeat(day, SLOTS), unit="D"),
            "wheel": np.repeat(wheel, SLOTS),
            "explored": False,
            "propensity": propensity.ravel(),
        }
    )


def found(**how: object) -> dict[str, Hazard]:
    return {h.name: h for h in hazards.measure(rows(**how), AS_OF).hazards}  # type: ignore[arg-type]


def test_lists_that_are_alike_raise_no_alarm() -> None:
    said = found()
    assert len(said) == len(hazards.KINDS)
    for hazard in said.values():
        assert not hazard.alarm
        assert hazard.difference.low < 0 < hazard.difference.high, hazard


def test_a_catalogue_that_shrinks_raises_an_alarm() -> None:
    said = found(narrow=True)
    alarms = {name for name, hazard in said.items() if hazard.alarm}
    assert {"effective catalogue", "exposure Gini", "similarity of lists"} <= alarms
    assert said["effective catalogue"].exposed == pytest.approx(10, abs=1)
    assert said["effective catalogue"].holdback > 50


def test_new_items_that_are_not_shown_raise_an_alarm() -> None:
    said = found(starving=True)
    name = f"new items' first {hazards.NEEDED} impressions"
    assert said[name].alarm
    assert said[name].exposed == hazards.PATIENCE


def test_rows_that_a_ranker_made_for_itself_raise_an_alarm() -> None:
    hazard = found(sure=(0.9, 0.4))["rows the ranker made for itself"]
    assert hazard.alarm
    assert hazard.exposed == pytest.approx(0.9, abs=0.02)
    assert not found(sure=(0.4, 0.9))["rows the ranker made for itself"].alarm  # less of it is no harm


def test_more_people_are_no_more_variety() -> None:
    # the wheel has five times the users; whole arms compared, its catalogue would be the larger by that alone
    said = found(held=50, seed=3)["effective catalogue"]
    assert said.difference.low < 0 < said.difference.high


def test_too_few_are_told_so() -> None:
    few = hazards.measure(rows(held=20), AS_OF)
    assert not few.hazards
    assert "The holdback has 20 users" in few.says[0]
    none = hazards.measure(rows()[:0], AS_OF)
    assert "No champion" in none.says[0]
