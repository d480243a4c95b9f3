"""What measuring the wheel found: small frozen values that commands print, the page shows and MLflow keeps.

Each says in `says` what it shows, in sentences for a person. Intervals are of 95 % unless a name says otherwise.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Turning = Literal["compounding", "amplifying", "decoration", "reversing", "not enough evidence"]


@dataclass(frozen=True)
class Estimate:
    """A number and its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CurvePoint:
    """Quality of models trained on so many rows of so many users: the mean over seeds, and its standard error."""

    rows: int
    users: int
    quality: float
    se: float
    seeds: int


@dataclass(frozen=True)
class Prediction:
    """Quality to expect from more rows: a `forecast` up to four times those at hand, a `scenario` up to ten times."""

    rows: int
    quality: Estimate
    kind: Literal["forecast", "scenario"]


@dataclass(frozen=True)
class Curve:
    """Quality against data at one instant, on one exam.

    `shape` is `well-behaved`, or names what is wrong with the curve; then there is no forecast. `families` are the
    weights of the fitted laws. `elasticity` is the share by which quality grows for each share more rows, at all rows,
    quality being what `elasticity_of` names: one on a scale whose ratios mean something.
    """

    metric: str
    as_of: datetime
    exam_rows: int
    points: tuple[CurvePoint, ...]
    envelope: tuple[float, ...]  # at each point the quality of the nearest curve that never falls
    forecast: tuple[Prediction, ...]
    shape: str
    region: Literal["small-data", "power-law", "plateau"]
    families: dict[str, float]
    scale: float  # by which back-tests widened the intervals
    elasticity: Estimate | None
    elasticity_of: str
    grid: tuple[CurvePoint, ...]  # fewer users, and fewer rows of each
    more_users: Estimate | None  # quality gained by half as many users again, with as many rows each
    more_per_user: Estimate | None  # and by half as many rows again of the same users
    made_from: str  # the hash of rows, recipe and code: what was measured already is not measured again
    says: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """What one cause contributed to a difference in quality."""

    name: str
    effect: Estimate


@dataclass(frozen=True)
class Why:
    """The difference between two generations, split into parts that sum to it."""

    a: int
    b: int
    metric: str
    total: Estimate
    parts: tuple[Part, ...]
    interactions: tuple[Part, ...]  # those that are large
    says: tuple[str, ...]


@dataclass(frozen=True)
class Aged:
    """How much worse a model is when it is so many days old than when it is fresh, at equal data."""

    days: float
    loss: Estimate


@dataclass(frozen=True)
class Kept:
    """How much better (or worse, below 0) a model is that learns from the newest so many days alone."""

    days: float
    rows: int
    gain: Estimate


@dataclass(frozen=True)
class Staleness:
    """How fast generations and data age. `half_life_days` is None where no aging is seen."""

    metric: str
    as_of: datetime
    ages: tuple[Aged, ...]
    windows: tuple[Kept, ...]
    half_life_days: Estimate | None
    keep_days: float | None  # None: keep everything
    says: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """Whether everybody's data improves everybody's model: quality for a cohort with its own rows, and with all."""

    metric: str
    as_of: datetime
    own: float
    everybody: float
    difference: Estimate
    joining: tuple[CurvePoint, ...]  # quality for the same cohort as others join
    says: tuple[str, ...]


@dataclass(frozen=True)
class PolicyValue:
    """What a policy would have earned per slot, by one estimator."""

    estimator: Literal["ips", "snips", "dr"]
    value: Estimate


@dataclass(frozen=True)
class OffPolicy:
    """The value of a policy from what other policies logged. `refused` says why there is none, or is empty."""

    policy: str
    rows: int
    logged: Estimate
    values: tuple[PolicyValue, ...]
    gain: Estimate | None  # by dr, over what the log earned on the same rows
    model_alone: float  # what a reward model says without any log: a diagnostic
    effective: float  # sample size
    largest_weight: float  # share of all
    unsupported: float  # share of the policy's choices that were never possible in the log
    mean_weight: Estimate  # 1, if the propensities are right
    refused: str
    says: tuple[str, ...]


@dataclass(frozen=True)
class Explored:
    """What exploring so large a share of slots would show, and cost."""

    share: float
    effective: float  # rows' worth of evidence on the challenger, for each row logged
    detectable: float  # gain in reward a slot that a turn would show, with 80 % power
    cost: float  # reward given up in a turn, against no exploration at all


@dataclass(frozen=True)
class Exploration:
    """How much exploration it takes to see a gain by the next turn. `share` is None where no share would do."""

    gain: float
    share: float | None
    current: float
    rows: int  # slots that a turn logs
    disagreement: float  # share of slots in which challenger and champion would show another item
    candidates: float  # of a decision
    table: tuple[Explored, ...]
    turns: int  # until the gain shows: 1, or with no share that would do, at the cheapest that ever shows it
    says: tuple[str, ...]


@dataclass(frozen=True)
class Period:
    """Users, rows and reward of a span of time with the wheel, and without it: the holdback, scaled to everybody."""

    start: datetime
    users: int
    rows: int
    reward: float
    users_without: float
    rows_without: float
    reward_without: float


@dataclass(frozen=True)
class Gain:
    """The loop gain G: the share of a shock in users that comes back as more users.

    All of it is over the span that a champion has served, `turns` of so many days, but for `one_turn`: G of the newest
    turn alone. None where the evidence does not reach. `users_added` are those of a turn of late that are there
    because of the wheel: the exposed less the holdback, scaled to as many.
    """

    as_of: datetime
    turns: int
    turn_days: float
    data_per_user: Estimate | None
    quality_per_data: Estimate | None
    users_per_quality: Estimate | None
    gain: Estimate | None
    one_turn: Estimate | None
    verdict: Turning
    binding: str
    users_added: Estimate | None
    levers: tuple[str, ...]  # the cheapest first
    periods: tuple[Period, ...]
    says: tuple[str, ...]


@dataclass(frozen=True)
class Hazard:
    """One way in which the wheel may take more than it gives, for the exposed against the holdback."""

    name: str
    unit: str
    exposed: float
    holdback: float
    difference: Estimate  # of the confidence sequence, so it may be looked at every turn
    alarm: bool
    says: str


@dataclass(frozen=True)
class Hazards:
    """All hazards as of an instant."""

    as_of: datetime
    hazards: tuple[Hazard, ...]
    says: tuple[str, ...]
