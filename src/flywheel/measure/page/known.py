"""All that a page is made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from flywheel.evidence import Curve, Exploration, Gain, Hazards, Network, OffPolicy, Staleness, Why
from flywheel.records import Finding, Generation, LedgerLine, Move, Slice
from flywheel.watched import Watched


@dataclass(frozen=True)
class Known:
    """What a workspace knows of its wheel; None for what nobody has measured yet.

    Generations and ledger lines are oldest first. `findings` and `slices` are those of the newest generation,
    `importance` is what the champion learned from. A champion of 0 is the baseline.
    """

    product: str
    metric: str
    at: datetime
    generations: tuple[Generation, ...] = ()
    champion: int = 0
    moves: tuple[Move, ...] = ()
    ledger: tuple[LedgerLine, ...] = ()
    findings: tuple[Finding, ...] = ()
    slices: tuple[Slice, ...] = ()
    importance: Mapping[str, float] = field(default_factory=dict)
    serves: bool = False
    curve: Curve | None = None
    why: Why | None = None
    staleness: Staleness | None = None
    network: Network | None = None
    offpolicy: OffPolicy | None = None
    exploration: Exploration | None = None
    gain: Gain | None = None
    hazards: Hazards | None = None
    watched: Watched | None = None

    @property
    def serving(self) -> Generation | None:
        """The champion; None while the baseline serves."""
        return next((g for g in self.generations if g.generation == self.champion), None)
