"""The loop gain and the hazards as a person sees them in a terminal."""

from rich.console import Group, RenderableType
from rich.text import Text

from flows.show import table
from flywheel.evidence import Estimate, Gain, Hazards

COLOURS = {"compounding": "green", "amplifying": "green", "reversing": "red"}


def gain(found: Gain) -> RenderableType:
    """What the loop gain says, its factors, the turns of late, and the levers."""
    first, *more = found.says
    factors = [
        ("data per user", found.data_per_user),
        ("quality per data", found.quality_per_data),
        ("users per quality", found.users_per_quality),
        (f"loop gain, over {found.turns} turns", found.gain),
        ("loop gain, in one turn", found.one_turn),
    ]
    rows = [(f"{name}{' (binds)' if name == found.binding else ''}", _estimate(value)) for name, value in factors]
    levers = [Text(f"  {n}. {lever}") for n, lever in enumerate(found.levers, 1)]
    return Group(
        Text(first, style=COLOURS.get(found.verdict, "yellow")),
        *map(Text, more),
        Text(),
        table("factor", "value (95 %)", rows=rows),
        *([Text(), Text("Levers, the cheapest first:"), *levers] if levers else []),
        Text(),
        _periods(found),
    )


def hazards(found: Hazards) -> RenderableType:
    """Each hazard for those the wheel serves, beside the holdback."""
    rows = [
        (
            Text(h.name, style="red" if h.alarm else ""),
            "alarm" if h.alarm else "quiet",
            _number(h.exposed),
            _number(h.holdback),
            _estimate(h.difference),
            h.unit,
        )
        for h in found.hazards
    ]
    heads = ("hazard", "", "with the wheel", "holdback", "difference (sequence)", "unit")
    shown = table(*heads, rows=rows, right=("with the wheel", "holdback"))
    says = map(Text, found.says)
    return Group(*says, Text(), shown) if rows else Group(*says)


def _periods(found: Gain) -> RenderableType:
    rows = [
        (
            f"{p.start:%Y-%m-%d}",
            f"{p.users:,}",
            f"{p.users_without:,.0f}",
            f"{p.rows:,}",
            f"{p.rows_without:,.0f}",
            f"{p.reward:,.0f}",
            f"{p.reward_without:,.0f}",
        )
        for p in found.periods[-8:]
    ]
    heads = ("turn from", "users", "without", "rows", "without ", "reward", "without  ")
    return table(*heads, rows=rows, right=heads[1:])


def _estimate(found: Estimate | None) -> str:
    if found is None:
        return "—"
    return f"{_number(found.value)} ({_number(found.low)} to {_number(found.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
