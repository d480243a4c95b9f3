"""What a person sees of a backfill, as rich renderables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from flows.correcting import Ahead
from flows.rehearsing import Rehearsal
from flows.rewriting import Redone
from flows.show import steps, table

if TYPE_CHECKING:
    from flows.backfill import Done

COLOURS = {"rewritten": "green", "closed": "green", "failed": "red", "kept": "yellow", "waits": "yellow"}


def backfilled(done: Done) -> RenderableType:
    """Whatever a backfill came to, by its stage."""
    if not isinstance(done, list):
        return rehearsed(done) if isinstance(done, Rehearsal) else ahead(done)
    redone = [one for one in done if isinstance(one, Redone)]
    return windows(redone) if redone else steps([one for one in done if not isinstance(one, Redone)])


def windows(done: Sequence[Redone]) -> RenderableType:
    """One line a window."""
    rows = [
        (
            one.window,
            Text(one.status, style=COLOURS.get(one.status, "dim")),
            f"{one.before:,}",
            f"{one.rows:,}",
            one.why,
        )
        for one in done
    ]
    return table("window", "came to", "rows before", "now", "because", rows=rows, right=("rows before", "now"))


def ahead(found: Ahead) -> RenderableType:
    """What a backfill of windows would do, and which past decisions rest on what it changes."""
    took = "unknown, nothing like it was measured here" if found.seconds is None else f"about {found.seconds:,.0f} s"
    planned = sum(one.status == "planned" for one in found.windows)
    said = Text(f"{planned:,} windows, {found.rows:,} rows; time: {took}")
    rows = [
        (str(t.generation), f"{t.as_of:%Y-%m-%d}", t.verdict, t.alias, f"{t.trained:,}", f"{t.examined:,}")
        for t in found.generations
    ]
    columns = ("generation", "as of", "verdict", "alias", "of its training", "of its exam")
    decisions = table(*columns, rows=rows, right=(columns[0], *columns[4:]))
    note = Text(f"\npast decisions that might have been others: {len(rows) or 'none'}; a backfill changes none")
    return Group(windows(found.windows), said, note, *([decisions] if rows else []))


def rehearsed(found: Rehearsal) -> RenderableType:
    """One line a generation, and what they say together."""
    rows = [
        (
            str(t.generation),
            f"{t.then:.4f}",
            f"{t.with_it:.4f}",
            f"{t.difference:+.4f}",
            f"{t.low:+.4f} to {t.high:+.4f}",
        )
        for t in found.trials
    ]
    columns = ("generation", f"{found.metric} then", "with the recipe", "difference", "interval")
    return Group(table(*columns, rows=rows, right=columns), Text(found.says), *(Text(line) for line in found.skipped))


def _span(low: float, high: float) -> str:
    return f"{low:+.4f} to {high:+.4f}"
