"""Whether the wheel turns: evidence, what it may harm, and the page."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.terminal import AsOf, Json, Number, console, instant, opened, out, progress, say

commands = typer.Typer()


@commands.command()
def report(to: Annotated[Path | None, typer.Option("--out", help="Where to write it.")] = None) -> None:
    """Write the page that says whether the wheel turns: one file, to look at from disk."""
    ws = opened()
    from flows import reporting

    made = reporting.report(ws, to)
    say(f"{made.path}\n{made.says}")


@commands.command()
def curve(
    as_of: AsOf = None,
    more: Annotated[int | None, typer.Option(help="What so many rows more would add.", min=1)] = None,
    target: Annotated[float | None, typer.Option(help="The rows that it takes to reach such a quality.")] = None,
    as_json: Json = False,
) -> None:
    """Measure quality against data at one instant, and foretell what more data would add."""
    ws = opened()
    from flows import curving, show_curve

    found, answers = curving.asked(ws, instant(as_of), more, target, on_progress=progress)
    told = {**asdict(found), "answers": answers}
    out(as_json, told, lambda: console().print(show_curve.curve(found, answers)))


@commands.command()
def gain(as_of: AsOf = None, as_json: Json = False) -> None:
    """Say whether the wheel turns: the loop gain, which factor binds, and the cheapest levers."""
    ws = opened()
    from flows import growing, show_growth

    found = growing.gain(ws, instant(as_of), retrain=True)
    out(as_json, found, lambda: console().print(show_growth.gain(found)))


@commands.command()
def hazards(as_of: AsOf = None, as_json: Json = False) -> None:
    """Say what the wheel may harm, for those it serves against the holdback."""
    ws = opened()
    from flows import growing, show_growth

    found = growing.hazards_of(ws, instant(as_of))
    out(as_json, found, lambda: console().print(show_growth.hazards(found)))


@commands.command()
def stale(as_of: AsOf = None, as_json: Json = False) -> None:
    """Say how fast models and rows age, and whether dropping old rows helps; trains again, in minutes."""
    ws = opened()
    from flows import aging, show_causes

    found = aging.stale(ws, instant(as_of), on_progress=progress)
    out(as_json, found, lambda: console().print(show_causes.staleness(found)))


@commands.command()
def network(as_of: AsOf = None, as_json: Json = False) -> None:
    """Say whether everybody's data improves everybody's model, or only their own; trains again, in minutes."""
    ws = opened()
    from flows import joining, show_causes

    found = joining.network(ws, instant(as_of), on_progress=progress)
    out(as_json, found, lambda: console().print(show_causes.network(found)))


@commands.command()
def value(generation: Number, as_json: Json = False) -> None:
    """Say what a generation would have earned in place of those that served, from the log of the newest exam."""
    ws = opened()
    from flows import show_value, valuing

    found = valuing.value(ws, generation)
    out(as_json, found, lambda: console().print(show_value.value(found)))


@commands.command()
def explore(
    gain: Annotated[float, typer.Option(help="The gain to see, in reward a slot.", min=1e-6)] = 0.01,
    as_json: Json = False,
) -> None:
    """Say how much exploration shows a gain by the next turn, and what it costs."""
    ws = opened()
    from flows import exploring, show_value

    found = exploring.plan(ws, gain)
    out(as_json, found, lambda: console().print(show_value.exploration(found)))
