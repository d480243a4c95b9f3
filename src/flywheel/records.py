"""The values that travel between stages: small, frozen, and free of every library."""

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Decision = Literal["promote", "keep", "reject"]


@dataclass(frozen=True)
class Outcomes:
    """What became of the outcomes that a closed window settled; counts that do not add up cannot be made.

    `joined` ones reached a row in time. `quarantined` ones name an item that was not shown, a time before it was, or
    an event id that was used for something else. `orphaned` ones name a decision that never came. `late` ones came
    after their window had closed, or more than `attribution` after the decision.
    """

    collected: int = 0
    joined: int = 0
    duplicate: int = 0
    quarantined: int = 0
    orphaned: int = 0
    late: int = 0

    def __post_init__(self) -> None:
        accounted = self.joined + self.duplicate + self.quarantined + self.orphaned + self.late
        if self.collected != accounted:
            raise ValueError(f"the ledger of outcomes is off: {self.collected} collected, {accounted} accounted for")


@dataclass(frozen=True)
class LedgerLine:
    """What became of every event that a closed window collected.

    `collected + returned = rows + duplicate + quarantined + unlabelled + late`; a line that does not add up cannot be
    made. `rows` may be trained on. `late` rows are in the file and move the state, and are no training rows.
    `unlabelled` rows are in the file, and nothing learns from them. `shards` names what the window consumed.
    `returned` rows of this window are counted, late, by the later window that collected them; a backfill gave them
    back. `rules` is the fingerprint of contract and suites that it was closed by; empty where that was not recorded.
    """

    window: str
    start: datetime
    end: datetime
    collected: int
    rows: int
    duplicate: int
    quarantined: int
    unlabelled: int
    late: int
    events_sha256: str
    quarantine_sha256: str | None
    shards: tuple[str, ...]
    outcomes: Outcomes = Outcomes()
    returned: int = 0
    rules: str = ""

    def __post_init__(self) -> None:
        held = self.collected + self.returned
        accounted = self.rows + self.duplicate + self.quarantined + self.unlabelled + self.late
        if held != accounted:
            raise ValueError(f"the ledger of window {self.window} is off: {held} collected, {accounted} accounted for")


@dataclass(frozen=True)
class Interval:
    """An estimate with its two-sided interval, and what it rests on."""

    estimate: float
    low: float
    high: float
    se: float
    rows: int
    users: int


@dataclass(frozen=True)
class Comparison:
    """Challenger against champion on the same rows.

    `difference` is signed so that more is better for the challenger, whatever the metric's own direction.
    """

    metric: str
    challenger: float
    champion: float
    difference: Interval


@dataclass(frozen=True)
class Slice:
    """A comparison on the rows whose `column` is `value`."""

    column: str
    value: str
    rows: int
    users: int
    comparison: Comparison


@dataclass(frozen=True)
class Evaluation:
    """One exam: every metric of both models on the same rows, the one that decides, and the slices."""

    rows: int
    users: int
    challenger: dict[str, float]
    champion: dict[str, float]
    overall: Comparison
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One piece of evidence: what was measured, against what, on how many rows."""

    name: str
    status: Literal["pass", "fail", "not enough evidence"]
    value: float
    threshold: float
    n: int
    detail: str

    def __post_init__(self) -> None:
        if self.status == "pass" and math.isnan(self.value):
            raise ValueError(f"finding {self.name} passes on a value that is not a number")


@dataclass(frozen=True)
class Verdict:
    """What the gate says, the reason in one sentence, and all the evidence."""

    decision: Decision
    reason: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Move:
    """One move of the champion alias: who did it, when and why. A generation of 0 is the baseline.

    One of the `canary` is a move of that alias; there 0 is nobody.
    """

    action: Literal["promote", "rollback", "canary"]
    before: int
    after: int
    who: str
    when: datetime
    why: str


@dataclass(frozen=True)
class Generation:
    """One generation as its MLflow run tells it. `examined_against` is 0 for the baseline."""

    generation: int
    as_of: datetime
    train_rows: int
    train_users: int
    exam_rows: int
    metrics: dict[str, float]
    baseline: dict[str, float]
    difference: Interval | None
    verdict: Decision
    reason: str
    examined_against: int
    trained_windows: tuple[str, str]
    exam_windows: tuple[str, str]
    dataset: str
    code: str
    config: str
    seed: int
    run_id: str
    turn_id: str
    trigger: str
    alias: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteResult:
    """What one expectation suite said of one frame.

    `bad_rows` maps the position of a row to every reason against it. `failures` are expectations that the frame as
    a whole did not meet, each as (sentence, critical).
    """

    bad_rows: dict[int, tuple[str, ...]]
    failures: tuple[tuple[str, bool], ...]
