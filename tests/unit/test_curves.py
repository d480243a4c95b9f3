"""From what models were worth to a curve, its forecast and its words: pure, on curves whose truth is known."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from flywheel.errors import DataError
from flywheel.evidence import Curve
from flywheel.measure import curves, forecast, worth
from flywheel.measure.curves import Asked, Scored

ROWS, USERS, NOISE = 64_000, 6_400, 0.001
ASKED = Asked("auc", datetime(2026, 1, 1, tzinfo=UTC), 5_000, 0.002, "made-from")
SHARES = [2 ** (-step / 2) for step in range(13)]


def power(users: float, rows: float = 1.0) -> float:
    """An error that falls by users more than by rows of each."""
    return 0.1 + 0.05 * users**-0.3 + 0.03 * rows**-0.3


def scored(law=power, noise: float = NOISE, seed: int = 0) -> list[Scored]:
    rng = np.random.default_rng(seed)
    cells = [(share, 1.0, 5) for share in SHARES] + [(u, r, 3) for u in (1.0, 0.5, 0.25) for r in (0.5, 0.25)]
    return [
        Scored(u, r, d, round(ROWS * u * r), round(USERS * u), 1 - law(u, r) + rng.normal(0, noise), np.nan)
        for u, r, draws in cells
        for d in range(draws)
    ]


def drawn(law=power, asked: Asked = ASKED, **options: float) -> Curve:
    found = curves.curve(scored(law, **options), asked)
    return replace(found, says=worth.says(found))


def test_a_power_law_is_foretold() -> None:
    found = drawn()
    assert (found.shape, found.region, len(found.points)) == ("well-behaved", "power-law", 13)
    four = next(p for p in found.forecast if p.rows == 4 * ROWS)
    assert four.kind == "forecast"
    assert four.quality.value == pytest.approx(1 - power(4), abs=0.005)
    assert four.quality.low < 1 - power(4) < four.quality.high
    assert {p.kind for p in found.forecast if p.rows > 4 * ROWS} == {"scenario"}
    assert any(sentence.endswith("more data still helps.") for sentence in found.says)


def test_users_are_told_from_rows_of_each() -> None:
    found = drawn(lambda users, rows: 0.1 + 0.05 * users**-0.3 + 0 * rows)
    assert found.more_users is not None
    assert found.more_per_user is not None
    assert found.more_users.low > found.more_per_user.high
    assert found.more_users.value == pytest.approx(0.05 * (1 - 1.5**-0.3), abs=0.002)
    assert "more users are worth more" in found.says[-1]


def test_a_plateau_is_called_one() -> None:
    found = drawn(lambda users, rows: 0.2 + 0.05 * np.exp(-users * 40) + 0 * rows)
    assert found.region == "plateau"
    assert not any(sentence.endswith("more data still helps.") for sentence in found.says)


def test_a_curve_that_dips_is_named_and_not_foretold() -> None:
    dip = drawn(lambda users, rows: power(users, rows) + 0.03 * (0.1 < users < 0.2))
    assert "falls from" in dip.shape
    assert dip.forecast == ()
    assert list(dip.envelope) == sorted(dip.envelope)
    with pytest.raises(DataError, match="no forecast"):
        worth.gain(dip, 1000)


def test_late_gains_are_named() -> None:
    late = drawn(lambda users, rows: 0.3 - 0.1 / (1 + np.exp(-12 * (users - 0.6))) + 0 * rows)
    assert "gains late" in late.shape


def test_noise_alone_is_no_bad_behaviour() -> None:
    named = [drawn(noise=0.004, seed=seed).shape != curves.WELL_BEHAVED for seed in range(20)]
    assert sum(named) <= 2


def test_beyond_ten_times_is_refused() -> None:
    found = drawn()
    assert worth.gain(found, 9 * ROWS).value > 0
    with pytest.raises(DataError, match="nothing can be foretold") as caught:
        worth.gain(found, 9 * ROWS + 10_000)
    assert "flywheel curve --more" in str(caught.value)


def test_rows_needed_for_a_target() -> None:
    found = drawn()
    target = 1 - power(2)
    needed = worth.needed(found, target)
    assert needed.rows is not None
    assert needed.low is not None
    assert needed.high is not None
    assert needed.low <= 2 * ROWS <= needed.high
    assert worth.needed(found, 0.99).rows is None
    assert "not reachable" in worth.needed(found, 0.99).says
    assert "with the rows at hand" in worth.needed(found, 0.7).says


@pytest.mark.parametrize("metric", ["log_loss", "rmse"])
def test_a_metric_of_which_less_is_better(metric: str) -> None:
    lower = [replace(one, quality=1 - one.quality) for one in scored()]
    found = curves.curve(lower, replace(ASKED, metric=metric))
    assert found.points[-1].quality == pytest.approx(power(1), abs=0.005)
    assert worth.gain(found, ROWS).value == pytest.approx(power(1) - power(2), abs=0.004)
    assert found.elasticity is not None
    assert found.elasticity.value == pytest.approx(0.3 * 0.05 / power(1), abs=0.04)


def test_too_few_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="too few rows"):
        curves.curve([one for one in scored() if one.users_share >= 0.3], ASKED)


def test_a_miss_of_the_hidden_sizes_widens_the_band() -> None:
    rows, se = 2.0 ** np.arange(-6, 0.5, 0.5), np.full(13, 0.001)
    smooth = 0.2 + 0.02 * rows**-0.3
    turned = smooth + 0.02 * np.maximum(0, rows - 0.4)
    assert forecast.backtest(rows, smooth, se) < 1.2 < forecast.backtest(rows, turned, se)
