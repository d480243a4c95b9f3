"""Off-policy values and plans to explore, as a person sees them in a terminal."""

from rich.console import Group, RenderableType
from rich.text import Text

from flows.show import table
from flywheel.evidence import Estimate, Exploration, OffPolicy

NAMES = {"ips": "inverse propensity (IPS)", "snips": "self-normalised (SNIPS)", "dr": "doubly robust (DR)"}


def value(found: OffPolicy) -> RenderableType:
    """What a policy would have earned by each estimator, and what that rests on."""
    rows = [("what was logged", told(found.logged)), *((NAMES[v.estimator], told(v.value)) for v in found.values)]
    rows += [("gain over the log, by DR", told(found.gain))] if found.gain else []
    rows += [("what the model alone says", f"{found.model_alone:.4f}")] if found.values else []
    rests = [
        ("rows", f"{found.rows:,}, worth {found.effective:,.0f} of the policy's own"),
        ("largest weight", f"{found.largest_weight:.1%} of all"),
        ("never possible in the log", f"{found.unsupported:.1%} of its choices"),
        ("mean weight", f"{told(found.mean_weight)}; 1, if the probabilities are right"),
    ]
    says = [Text(found.says[0], style="yellow" if found.refused else "bold"), Text()]
    notes = [Text(f"note: {line}", style="dim") for line in found.says[1:]]
    weighed = rests if found.effective else []
    return Group(*says, table("reward a slot", "", rows=[*rows, *weighed]), *notes)


def exploration(found: Exploration) -> RenderableType:
    """What each share of exploration would show, and cost; and the advice."""
    rows = [
        (
            Text(f"{one.share:.1%}", style="bold" if one.share == found.current else ""),
            f"{one.effective:.1%}",
            f"{one.detectable:.4f}",
            f"{one.cost:,.1f}",
        )
        for one in found.table
    ]
    names = ("explore", "rows that count", "gain that shows", "cost a turn")
    what = (
        f"an exam of {found.rows:,} slots, {found.candidates:.0f} candidates each; challenger and champion would fill "
        f"{found.disagreement:.0%} of slots differently; today {found.current:.1%} are explored"
    )
    style = "yellow" if found.share is None else "bold"
    return Group(
        *(Text(line, style=style) for line in found.says), Text(what), Text(), table(*names, rows=rows, right=names)
    )


def told(found: Estimate) -> str:
    """A number and its interval."""
    return f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f})"
