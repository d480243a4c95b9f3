"""A learning curve as a terminal shows it."""

from rich.console import Group, RenderableType
from rich.text import Text

from flows.show import table
from flywheel.evidence import Curve, Estimate


def curve(drawn: Curve, answers: tuple[str, ...] = ()) -> RenderableType:
    """The points, what is foretold of more, and what it all shows."""
    measured = [
        (f"{p.rows:,}", f"{p.users:,}", f"{p.quality:.4f} ± {1.96 * p.se:.4f}", "measured") for p in drawn.points
    ]
    ahead = [(f"{p.rows:,}", "", _within(p.quality), p.kind) for p in drawn.forecast]
    points = table("rows", "users", drawn.metric, "", rows=[*measured, *ahead], right=("rows", "users"))
    said = [Text(sentence) for sentence in (*drawn.says, *answers)]
    return Group(points, Text(), *said)


def _within(found: Estimate) -> str:
    return f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"
