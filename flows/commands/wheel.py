"""Turn the wheel, and look after what it turns on."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.terminal import AsOf, DryRun, Json, Wait, console, instant, opened, out, progress, say

commands = typer.Typer()


@commands.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make a workspace.")],
    source: Annotated[str | None, typer.Option("--from", help="A file, a glob, or a SQLAlchemy URL to read.")] = None,
    timestamp: Annotated[str | None, typer.Option(help="Column: when it happened.")] = None,
    label: Annotated[str | None, typer.Option(help='Column, or "rating >= 4": how it was received.')] = None,
    user: Annotated[str | None, typer.Option(help="Column: to whom.")] = None,
    item: Annotated[str | None, typer.Option(help="Column: what.")] = None,
    request: Annotated[str | None, typer.Option(help="Column: which rows were shown together.")] = None,
    event_id: Annotated[str | None, typer.Option(help="Column: the event's unique id.")] = None,
    label_time: Annotated[str | None, typer.Option(help="Column: when the label became known.")] = None,
    position: Annotated[str | None, typer.Option(help="Column: in which slot.")] = None,
    propensity: Annotated[str | None, typer.Option(help="Column: with which probability it was shown.")] = None,
    outcome: Annotated[list[str] | None, typer.Option(help="Column known only afterwards; may be repeated.")] = None,
    table: Annotated[str | None, typer.Option(help="SQL: the table to read.")] = None,
    query: Annotated[str | None, typer.Option(help="SQL: a query to read.")] = None,
    kind: Annotated[str | None, typer.Option(help="Of the label: binary or number.")] = None,
    name: Annotated[str | None, typer.Option(help="The product's name; the folder's, if not given.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="There is no log yet: the product's answers make it.")] = False,
    numeric: Annotated[list[str] | None, typer.Option(help="With --serve: context that is a number.")] = None,
    categorical: Annotated[list[str] | None, typer.Option(help="With --serve: context that is a name.")] = None,
    names: Annotated[list[str] | None, typer.Option("--list", help="With --serve: context that is names.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Make a workspace: from a file of interactions, or with --serve from nothing.

    Shows how each column of the file is understood, then writes it. With neither --from nor --serve, a folder that
    has a flywheel.toml already, such as a clone, gets what it lacks.
    """
    from flows import show, starting

    if serve:
        from flywheel.infer.unseen import unseen

        context = {"numeric": numeric or [], "categorical": categorical or [], "lists": names or []}
        starting.start_serving(folder, unseen(name=name or folder.resolve().name, **context))
        say(f"{folder} is a workspace now. Read {folder / 'flywheel.toml'}, then:")
        say(f"  cd {folder} && flywheel serve, and each night flywheel turn")
        return
    if source is None:
        lacking = starting.complete(folder)
        say(f"{folder} is ready" + (": next, dvc pull" if lacking else ""))
        return
    given = {
        "timestamp": timestamp, "label": label, "user": user, "item": item, "request": request, "event_id": event_id,
        "label_time": label_time, "position": position, "propensity": propensity, "table": table, "query": query,
        "kind": kind, "outcomes": tuple(outcome or ()),
    }  # fmt: skip
    started = starting.start(folder, source, given, name=name, look_only=dry_run)  # type: ignore[arg-type]
    console().print(show.proposal(started.proposal))
    if started.files:
        say(f"\n{folder} is a workspace now. Read {folder / 'flywheel.toml'}, then:")
        say(f"  cd {folder} && flywheel backfill --every 28d && flywheel generations")


@commands.command()
def turn(
    as_of: AsOf = None,
    promote: Annotated[bool, typer.Option(help="Move the champion if the gate lets the challenger through.")] = True,
    dry_run: DryRun = False,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Turn the wheel once: collect, validate, train, examine, decide, promote."""
    ws = opened()
    from flows import inspect, run, show

    if dry_run:
        ahead = inspect.ahead(ws, instant(as_of))
        out(as_json, ahead, lambda: console().print(show.ahead(ahead)))
        return
    turned = run.turn(ws, instant(as_of), promote=promote, wait=wait, on_progress=progress)
    out(as_json, turned, lambda: console().print(show.turned(turned, inspect.closed(ws, turned.closed))))


@commands.command()
def backfill(
    every: Annotated[str, typer.Option(help="A generation every so much event time, such as 28d.")] = "28d",
    start: Annotated[str | None, typer.Option("--from", help="The first instant to act as of, or window.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="The last instant to act as of; of windows the end.")] = None,
    stage: Annotated[str, typer.Option(help="windows, features or generations.")] = "generations",
    reprocess: Annotated[str, typer.Option(help="Of windows: missing, failed, changed or all.")] = "missing",
    max_active: Annotated[int, typer.Option(help="So many windows at once.", min=1)] = 1,
    recipe: Annotated[Path | None, typer.Option(help="Try another flywheel.toml or features.py in the past.")] = None,
    promote: Annotated[bool, typer.Option("--promote", help="Move the champion as the gate says.")] = False,
    dry_run: DryRun = False,
    wait: Wait = False,
    as_json: Json = False,
) -> None:
    """Make past windows, features or generations again, or as they would have been; it resumes where it stopped."""
    ws = opened()
    from flows import run

    times = None if start is None else instant(start), None if end is None else instant(end)
    what = {"stage": stage, "reprocess": reprocess, "max_active": max_active, "recipe": recipe}
    made, error = run.backfill(
        ws, every, times, promote=promote, dry_run=dry_run, wait=wait, on_progress=progress, **what
    )
    from flows import show_backfill

    out(as_json, made, lambda: console().print(show_backfill.backfilled(made)))
    if error is not None:
        raise error


@commands.command()
def status(as_json: Json = False) -> None:
    """Say what is going on: what runs, the last turn, the champion, the data; also while everything is down."""
    ws = opened()
    from flows import show, standing

    found = standing.status(ws)
    out(as_json, found, lambda: console().print(show.status(found)))


@commands.command()
def replay(window: Annotated[str, typer.Argument(help="The window whose quarantine is tried again.")]) -> None:
    """Put a window's quarantined rows back into the inbox, once what stood in their way is mended."""
    ws = opened()
    from flows import inspect

    say(inspect.replay(ws, window, datetime.now(UTC)))


@commands.command()
def docs(last: Annotated[int, typer.Option(help="So many of the newest windows.")] = 5) -> None:
    """Render Great Expectations' own pages for the newest closed windows."""
    ws = opened()
    from flows import inspect

    say(str(inspect.data_docs(ws, last)))
