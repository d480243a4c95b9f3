"""Half-lives are found where data ages and not where it does not; rows are dropped only where that surely pays."""

import numpy as np
import pytest

from flywheel.evidence import Estimate
from flywheel.measure import staleness
from flywheel.measure.staleness import Aging

NOISE = 0.001


def models() -> list[Aging]:
    """All rows of 12 weeks; a share of them; as many that end earlier; and the newest alone."""
    days, rows = np.arange(3.5, 84, 7.0), np.full(12, 5000.0)
    made = [Aging(days, rows * share) for share in (1, 0.5, 0.25, 0.125)]
    made += [Aging(days[k:], rows[k:] * 4 / (12 - k)) for k in (0, 2, 4, 6, 8)]
    return made + [Aging(days[:k], rows[:k]) for k in (9, 6, 5, 3, 2)]


def qualities(rng: np.random.Generator, half_life: float) -> np.ndarray:
    effective = np.log([one.effective(half_life) for one in models()])
    return 0.6 + 0.03 * effective - 0.0008 * effective**2 + rng.normal(0, NOISE, len(effective))


def found(seed: int, half_life: float) -> Estimate | None:
    rng = np.random.default_rng(seed)
    return staleness.half_life(models(), qualities(rng, half_life), np.eye(len(models())) * NOISE**2)


@pytest.mark.parametrize("truth", [7.0, 21.0, 42.0])
def test_a_half_life_is_found_within_its_interval(truth: float) -> None:
    estimates = [one for seed in range(60) if (one := found(seed, truth))]
    assert len(estimates) >= 57
    assert np.mean([one.low <= truth <= one.high for one in estimates]) >= 0.88
    assert np.median([one.value for one in estimates]) == pytest.approx(truth, rel=0.15)


def test_where_nothing_ages_no_half_life_is_found() -> None:
    assert np.mean([found(seed, np.inf) is None for seed in range(60)]) >= 0.9


def test_a_common_error_of_the_exam_is_no_aging() -> None:
    rng = np.random.default_rng(1)
    made = models()
    shared = np.full((len(made), len(made)), 0.02**2) + np.eye(len(made)) * NOISE**2
    seen = staleness.half_life(made, qualities(rng, 21.0) + 0.05, shared)
    assert seen is not None
    assert seen.low <= 21 <= seen.high


@pytest.mark.parametrize(
    ("gains", "keep"),
    [
        ({14.0: (-0.02, 0.005), 28.0: (-0.01, 0.005)}, None),  # fewer rows, worse
        ({14.0: (0.01, 0.02), 28.0: (0.004, 0.006)}, None),  # better, perhaps
        ({14.0: (0.001, 0.0005)}, None),  # better, by less than counts
        ({14.0: (0.02, 0.004), 28.0: (0.019, 0.004), 42.0: (0.01, 0.004)}, 28.0),  # no more is dropped than pays
        ({14.0: (0.03, 0.004), 28.0: (0.01, 0.004)}, 14.0),
    ],
)
def test_rows_are_dropped_only_as_far_as_it_surely_pays(
    gains: dict[float, tuple[float, float]], keep: float | None
) -> None:
    estimates = {days: Estimate(value, value - reach, value + reach) for days, (value, reach) in gains.items()}
    assert staleness.shortened(estimates, 0.002) == keep
