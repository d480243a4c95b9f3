"""What a person sees of causes, aging and the worth of others' data, as rich renderables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from flows.show import table
from flywheel.evidence import CurvePoint, Estimate, Network, Staleness, Why


def why(found: Why) -> RenderableType:
    """The parts of a difference, which sum to it, and what they mean."""
    rows = [(part.name, *_cells(part.effect)) for part in found.parts]
    rows.append(("in all", *_cells(found.total)))
    rows += [(part.name, *_cells(part.effect)) for part in found.interactions]
    parts = table(f"{found.metric}, {found.a} → {found.b}", "effect", "interval", rows=rows, right=("effect",))
    return _with(found.says, parts)


def staleness(found: Staleness) -> RenderableType:
    """What age costs a model, and what is gained by keeping the newest rows alone."""
    aged = [(f"{age.days:,.1f}", *_cells(age.loss)) for age in found.ages]
    kept = [(f"{one.days:,.1f}", f"{one.rows:,}", *_cells(one.gain)) for one in found.windows]
    loss = f"loss of {found.metric}"
    return _with(
        found.says,
        table("days old", loss, "interval", rows=aged, right=("days old", loss)),
        Text(),
        table("newest days alone", "rows", "gain", "interval", rows=kept, right=("newest days alone", "rows", "gain")),
    )


def network(found: Network) -> RenderableType:
    """Quality for the same users as others join."""
    return _with(found.says, _joining(found.joining, found.metric))


def _joining(points: Sequence[CurvePoint], metric: str) -> RenderableType:
    rows = [(f"{p.users:,}", f"{p.rows:,}", f"{p.quality:.4f}", f"{p.se:.4f}") for p in points]
    return table("users", "rows", metric, "± se", rows=rows, right=("users", "rows", metric, "± se"))


def _cells(effect: Estimate) -> tuple[str, str]:
    return f"{effect.value:+.4f}", f"{effect.low:+.4f} to {effect.high:+.4f}"


def _with(says: Sequence[str], *below: RenderableType) -> RenderableType:
    return Group(*(Text(sentence) for sentence in says), Text(), *below)
