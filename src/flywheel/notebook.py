"""A wheel as a notebook sees it: data frames, and what was measured as small objects that draw themselves."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.errors import DataError
from flywheel.evidence import Curve, Gain, Hazards, Network, OffPolicy, Staleness, Why
from flywheel.found import COMMANDS, needed
from flywheel.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

    from flywheel.measure.page.parts import Part


@dataclass(frozen=True, repr=False)
class Shown:
    """What was measured: it says itself in a terminal, and draws itself in a notebook.

    `found` is the value itself, one of the classes of `flywheel.evidence`.
    """

    found: Any
    part: "Part"
    rows: Sequence[Any]

    @property
    def frame(self) -> "pd.DataFrame":
        """The numbers behind the drawing, one row each; an interval's ends are columns such as `effect.low`."""
        import pandas as pd

        return pd.json_normalize([asdict(row) for row in self.rows])

    def __repr__(self) -> str:
        from flywheel.measure.page.parts import sentences

        return sentences(self.part)

    def _repr_html_(self) -> str:
        from flywheel.measure.page.parts import alone

        return alone(self.part)


class Wheel(Workspace):
    """A workspace, and what was measured of it; what was not raises DataError, with the command that finds it."""

    @classmethod
    def open(cls, path: Path) -> "Wheel":
        """Open the workspace at `path`.

        Raises:
            ConfigError: it has no flywheel.toml, or one that cannot be read as meant.
        """
        opened = Workspace.open(path)
        return cls(opened.root, opened.config)

    def windows(self) -> "pd.DataFrame":
        """Every closed window with what became of its events, oldest first."""
        import pandas as pd

        frame = pd.json_normalize([asdict(line) for line in self.ledger()])
        return frame.drop(columns=["shards"]).set_index("window") if len(frame) else frame

    def curve(self) -> Shown:
        """Quality against data at one instant, with its forecast."""
        from flywheel.measure.page.quality import curve_alone

        found = needed(self.cache, Curve, "the learning curve")
        return Shown(found, curve_alone(found), found.points)

    def gain(self) -> Shown:
        """The loop gain, its factors, and growth with and without the wheel."""
        from flywheel.measure.page.people import gain_alone

        found = needed(self.cache, Gain, "the loop gain")
        return Shown(found, gain_alone(found), found.periods)

    def hazards(self) -> Shown:
        """What the wheel may harm, beside the holdback."""
        from flywheel.measure.page.people import hazards_alone

        found = needed(self.cache, Hazards, "what the wheel may harm")
        return Shown(found, hazards_alone(found), found.hazards)

    def why(self, a: int, b: int) -> Shown:
        """What the difference between two generations is made of."""
        from flywheel.measure.page.causes import why_alone

        found = needed(self.cache, Why, f"the difference between generations {a} and {b}")
        if (found.a, found.b) != (a, b):
            raise _other(Why, f"the split that is kept is of generations {found.a} and {found.b}", f"{a} {b}")
        return Shown(found, why_alone(found), found.parts)

    def staleness(self) -> Shown:
        """How fast models and data age."""
        from flywheel.measure.page.causes import staleness_alone

        found = needed(self.cache, Staleness, "how models and data age")
        return Shown(found, staleness_alone(found), [*found.ages, *found.windows])

    def network(self) -> Shown:
        """Whether everybody's data improves everybody's model."""
        from flywheel.measure.page.causes import network_alone

        found = needed(self.cache, Network, "whether everybody's data helps everybody")
        return Shown(found, network_alone(found), found.joining)

    def value(self, generation: int) -> Shown:
        """What a generation would have earned, from what was logged."""
        from flywheel.measure.page.people import offpolicy_alone

        found = needed(self.cache, OffPolicy, f"what generation {generation} would have earned")
        if found.policy != f"generation {generation}":
            raise _other(OffPolicy, f"the value that is kept is of {found.policy}", str(generation))
        return Shown(found, offpolicy_alone(found), found.values)


def _other(kind: type, what: str, asked: str) -> DataError:
    return DataError(what, next=COMMANDS[kind].replace("A B", asked).replace("N", asked))
