"""Generations: which there are, why, and which serves."""

import getpass
from datetime import UTC, datetime
from typing import Annotated

import typer

from flows.commands.terminal import AsOf, DryRun, Json, Number, Why, console, instant, opened, out, progress, say

commands = typer.Typer()


@commands.command()
def generations(as_json: Json = False) -> None:
    """List every generation, promoted or not."""
    ws = opened()
    from flows import inspect, show

    made = inspect.generations(ws)
    out(as_json, [inspect.as_json(g) for g in made], lambda: console().print(show.generations(made, ws.config.metric)))


@commands.command()
def explain(generation: Number, as_json: Json = False) -> None:
    """Say where a generation came from and why it was decided as it was."""
    ws = opened()
    from flows import inspect, show

    told = inspect.explain(ws, generation)
    out(as_json, told, lambda: console().print(show.explained(told)))


@commands.command()
def decide(generation: Number, as_of: AsOf = None, as_json: Json = False) -> None:
    """Decide on a generation again, by the labels known since and today's policy; nothing moves."""
    ws = opened()
    from flows import deciding_again, show_again

    told = deciding_again.decide_again(ws, generation, instant(as_of))
    out(as_json, told, lambda: console().print(show_again.again(told)))


@commands.command()
def compare(
    a: Number,
    b: Number,
    why: Annotated[
        bool, typer.Option("--why", help="Split the difference into causes; trains again, in minutes.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put two generations side by side: data, recipe, exam and metrics; with --why, what made the difference."""
    ws = opened()
    if why:
        from flows import attributing, show_causes

        split = attributing.why(ws, a, b, on_progress=progress)
        out(as_json, split, lambda: console().print(show_causes.why(split)))
        return
    from flows import inspect, show

    told = inspect.compare(ws, a, b)
    out(as_json, told, lambda: console().print(show.compared(told)))


@commands.command()
def promote(generation: Number, why: Why, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Make a generation the champion by hand."""
    move(generation, why, dry_run=dry_run, as_json=as_json)


@commands.command()
def approve(
    generation: Number,
    why: Why,
    refuse: Annotated[bool, typer.Option("--refuse", help="Say no; of a canary that serves, too.")] = False,
    as_json: Json = False,
) -> None:
    """Answer for a generation that passed and waits for a person, or end a canary."""
    from flows import approving

    came = approving.answer(
        opened(), generation, approve=not refuse, who=getpass.getuser(), why=why, as_of=datetime.now(UTC)
    )
    out(as_json, came, lambda: say(f"generation {generation} {came.status}: {came.reason}" if came else "taken down"))


@commands.command()
def rollback(why: Why = "rolled back by hand", dry_run: DryRun = False, as_json: Json = False) -> None:
    """Go back to the champion before; a second rollback returns."""
    move(None, why, dry_run=dry_run, as_json=as_json)


def move(generation: int | None, why: str, *, dry_run: bool, as_json: bool) -> None:
    """Move the champion, or say what would move, and tell it."""
    from flows import moving, show

    made = moving.move_by_hand(opened(), generation, why=why, dry_run=dry_run)
    would = "would move: " if dry_run else ""
    out(as_json, made, lambda: say(f"{would}champion: {show.named(made.before)} → {show.named(made.after)}"))


@commands.command()
def rebuild(generation: Number, as_json: Json = False) -> None:
    """Train a generation again from its own data, config and seed, and say whether it is the same."""
    ws = opened()
    from flows import rebuilding

    told = rebuilding.rebuild(ws, generation, on_progress=progress)
    out(as_json, told, lambda: say(told.says))
    raise typer.Exit(0 if told.identical else 1)
