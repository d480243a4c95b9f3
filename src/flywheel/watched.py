"""What the monitor goes by, and what it says: the `[monitor]` section, its signals, and a champion that was taken back.

A signal is `harm` only where arms that were drawn by lot show it; everything else that is not as it should be is `off`,
which warns, may ask for a turn, and takes nothing back.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from flywheel.evidence import Estimate
from flywheel.sections import Section

Standing = Literal["well", "harm", "off", "not enough evidence"]
Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9+.-]*://\S+$")]
HARM = "harm"  # the tag of a generation that was shown to do any: the reason
PROMISE = "what its exam promised"  # the name of a signal
MONITOR = "monitor"  # who moved the champion, where no person did


class Monitor(Section):
    """Whether the champion is still worth its place, and who is told."""

    rollback: bool = Field(True, description="go back to the champion before once harm is shown; else only tell")
    margin: float = Field(
        0.02, ge=0, lt=1, description="a loss this small counts as none: a share of the holdback's reward"
    )
    notify: tuple[Address, ...] = Field(
        (), description="who is told of a rollback, of harm, and of a run that failed: Apprise URLs"
    )


def masked(address: str) -> str:
    """An address as anybody may read it: the rest of it may be a secret.

    >>> masked("slack://TokenA/TokenB/TokenC")
    'slack://…'
    """
    return f"{address.partition('://')[0]}://…"


@dataclass(frozen=True)
class Signal:
    """One thing that was looked at: what it came to, on so many `n` of what it `says`. Without bounds no estimate."""

    name: str
    status: Standing
    estimate: Estimate | None
    n: int
    says: str


@dataclass(frozen=True)
class TakenBack:
    """A champion that the monitor took back, and whether its successor was seen to answer people since.

    `until` is the newest window that spoke, and `decisions` how many there were in the inbox as the alias moved.
    """

    before: int
    after: int
    when: datetime
    why: str
    until: str
    decisions: int
    served: bool | None = None  # None: nobody has asked since
    proof: str = "nobody has asked since"


@dataclass(frozen=True)
class Watched:
    """What the monitor saw: the champion (0 is the baseline) over the windows that it served, `since` to `until`."""

    as_of: datetime
    champion: int
    previous: int
    since: str
    until: str
    rows: int
    signals: tuple[Signal, ...]
    taken_back: TakenBack | None
    says: tuple[str, ...]

    @property
    def harm(self) -> bool:
        """Whether harm is shown."""
        return any(signal.status == "harm" for signal in self.signals)

    @property
    def short(self) -> bool:
        """Whether the champion gives less than it foretold."""
        return any(signal.name == PROMISE and signal.status == "off" for signal in self.signals)
