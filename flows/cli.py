"""The `flywheel` command: a person's "when". The only module that prints.

Every library is imported inside the command that needs it, so that `--help` answers at once.
"""

import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console

    from flows.progress import Listener
    from flywheel.workspace import Workspace

app = typer.Typer(
    help="Turn the interactions of a product into better models, through a gate, and prove it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
EPILOG = "Exit codes: 0 done or skipped, 1 error, 2 usage, 3 blocked, 75 busy, 130 interrupted."

STOPPED = (130, 143)  # Ctrl-C, which typer turns into its exit code, and SIGTERM

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
AsOf = Annotated[str | None, typer.Option(help="The instant to act as of, such as 2014-12-02; now, if not given.")]
Why = Annotated[str, typer.Option(help="The reason; it is kept with the move.")]
Wait = Annotated[bool, typer.Option(help="Wait for another command that holds the workspace.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Number = Annotated[int, typer.Argument(help="The generation's number.")]


@app.callback(epilog=EPILOG)
def root(
    workspace: Annotated[Path, typer.Option("--workspace", "-C", help="The workspace's folder.")] = Path(),
    debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False,
) -> None:
    """Turn the interactions of a product into better models, through a gate, and prove it."""
    os.environ["FLYWHEEL_WORKSPACE"] = str(workspace.resolve())


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def status(as_json: Json = False) -> None:
    """Say what is going on: what runs, the last turn, the champion, the data; also while everything is down."""
    ws = opened()
    from flows import show, standing

    found = standing.status(ws)
    out(as_json, found, lambda: console().print(show.status(found)))


@app.command()
def generations(as_json: Json = False) -> None:
    """List every generation, promoted or not."""
    ws = opened()
    from flows import inspect, show

    made = inspect.generations(ws)
    out(as_json, [inspect.as_json(g) for g in made], lambda: console().print(show.generations(made, ws.config.metric)))


@app.command()
def explain(generation: Number, as_json: Json = False) -> None:
    """Say where a generation came from and why it was decided as it was."""
    ws = opened()
    from flows import inspect, show

    told = inspect.explain(ws, generation)
    out(as_json, told, lambda: console().print(show.explained(told)))


@app.command()
def decide(generation: Number, as_of: AsOf = None, as_json: Json = False) -> None:
    """Decide on a generation again, by the labels known since and today's policy; nothing moves."""
    ws = opened()
    from flows import deciding_again, show_again

    told = deciding_again.decide_again(ws, generation, instant(as_of))
    out(as_json, told, lambda: console().print(show_again.again(told)))


@app.command()
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


@app.command()
def value(generation: Number, as_json: Json = False) -> None:
    """Say what a generation would have earned in place of those that served, from the log of the newest exam."""
    ws = opened()
    from flows import show_value, valuing

    found = valuing.value(ws, generation)
    out(as_json, found, lambda: console().print(show_value.value(found)))


@app.command()
def explore(
    gain: Annotated[float, typer.Option(help="The gain to see, in reward a slot.", min=1e-6)] = 0.01,
    as_json: Json = False,
) -> None:
    """Say how much exploration shows a gain by the next turn, and what it costs."""
    ws = opened()
    from flows import exploring, show_value

    found = exploring.plan(ws, gain)
    out(as_json, found, lambda: console().print(show_value.exploration(found)))


@app.command()
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


@app.command()
def gain(as_of: AsOf = None, as_json: Json = False) -> None:
    """Say whether the wheel turns: the loop gain, which factor binds, and the cheapest levers."""
    ws = opened()
    from flows import growing, show_growth

    found = growing.gain(ws, instant(as_of), retrain=True)
    out(as_json, found, lambda: console().print(show_growth.gain(found)))


@app.command()
def hazards(as_of: AsOf = None, as_json: Json = False) -> None:
    """Say what the wheel may harm, for those it serves against the holdback."""
    ws = opened()
    from flows import growing, show_growth

    found = growing.hazards_of(ws, instant(as_of))
    out(as_json, found, lambda: console().print(show_growth.hazards(found)))


@app.command()
def stale(as_of: AsOf = None, as_json: Json = False) -> None:
    """Say how fast models and rows age, and whether dropping old rows helps; trains again, in minutes."""
    ws = opened()
    from flows import aging, show_causes

    found = aging.stale(ws, instant(as_of), on_progress=progress)
    out(as_json, found, lambda: console().print(show_causes.staleness(found)))


@app.command()
def network(as_of: AsOf = None, as_json: Json = False) -> None:
    """Say whether everybody's data improves everybody's model, or only their own; trains again, in minutes."""
    ws = opened()
    from flows import joining, show_causes

    found = joining.network(ws, instant(as_of), on_progress=progress)
    out(as_json, found, lambda: console().print(show_causes.network(found)))


@app.command()
def promote(generation: Number, why: Why, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Make a generation the champion by hand."""
    move(generation, why, dry_run=dry_run, as_json=as_json)


@app.command()
def rollback(why: Why = "rolled back by hand", dry_run: DryRun = False, as_json: Json = False) -> None:
    """Go back to the champion before; a second rollback returns."""
    move(None, why, dry_run=dry_run, as_json=as_json)


def move(generation: int | None, why: str, *, dry_run: bool, as_json: bool) -> None:
    """Move the champion, or say what would move, and tell it."""
    from flows import moving, show

    made = moving.move_by_hand(opened(), generation, why=why, dry_run=dry_run)
    would = "would move: " if dry_run else ""
    out(as_json, made, lambda: say(f"{would}champion: {show.named(made.before)} → {show.named(made.after)}"))


@app.command()
def rebuild(generation: Number, as_json: Json = False) -> None:
    """Train a generation again from its own data, config and seed, and say whether it is the same."""
    ws = opened()
    from flows import rebuilding

    told = rebuilding.rebuild(ws, generation, on_progress=progress)
    out(as_json, told, lambda: say(told.says))
    raise typer.Exit(0 if told.identical else 1)


@app.command()
def replay(window: Annotated[str, typer.Argument(help="The window whose quarantine is tried again.")]) -> None:
    """Put a window's quarantined rows back into the inbox, once what stood in their way is mended."""
    ws = opened()
    from flows import inspect

    say(inspect.replay(ws, window, datetime.now(UTC)))


@app.command()
def docs(last: Annotated[int, typer.Option(help="So many of the newest windows.")] = 5) -> None:
    """Render Great Expectations' own pages for the newest closed windows."""
    ws = opened()
    from flows import inspect

    say(str(inspect.data_docs(ws, last)))


@app.command()
def report(to: Annotated[Path | None, typer.Option("--out", help="Where to write it.")] = None) -> None:
    """Write the page that says whether the wheel turns: one file, to look at from disk."""
    ws = opened()
    from flows import reporting

    made = reporting.report(ws, to)
    say(f"{made.path}\n{made.says}")


@app.command()
def ui(
    port: Annotated[int | None, typer.Option(help="The port on 127.0.0.1; 5000, or 4200 for runs.")] = None,
    runs: Annotated[bool, typer.Option("--runs", help="Prefect's pages: what ran when, instead of MLflow's.")] = False,
) -> None:
    """Serve MLflow's pages on loopback and print the link to the chart of quality against data."""
    ws = opened()
    if runs:
        from flywheel.integrations import prefect_api

        prefect_api.serve_ui(ws.root, port or 4200, lambda url: say(f"every run   {url}\nStop with Ctrl-C."))
        return
    from flows import deciding
    from flywheel.integrations import mlflow_ui

    with mlflow_ui.serve(deciding.open_store(ws), metric=ws.config.metric, port=port or 5000) as running:
        say(f"quality against data   {running.chart}")
        say(f"every generation       {running.table}")
        if running.curve:
            say(f"the learning curve     {running.curve}")
        say("Stop with Ctrl-C.")
        signal.pause()


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="0 picks a free one.")] = 8000,
    host: Annotated[str, typer.Option(help="Other than this machine's own, it takes tokens.")] = "127.0.0.1",
) -> None:
    """Answer people with the champion, and log what they were shown and what came of it.

    A new champion is taken up within ten seconds. Tokens come from FLYWHEEL_RANK_TOKEN and FLYWHEEL_INGEST_TOKEN.
    """
    ws = opened()
    from flows import serving

    serving.serve(ws, host, port, lambda url: say(f"answering on {url}; see {url}/openapi.json. Stop with Ctrl-C."))


@app.command()
def up(
    port: Annotated[int, typer.Option(help="To answer people on; 0 picks a free one.")] = 8000,
    prefect_port: Annotated[int, typer.Option(help="Of Prefect's pages.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Of MLflow's pages.")] = 5000,
) -> None:
    """Run all that a wheel needs to turn by itself: schedules, pages, and the server, on this machine's own address."""
    ws = opened()
    from flows import up as supervised

    supervised.up(ws, {"server": port, "prefect": prefect_port, "mlflow": mlflow_port}, say)


@app.command()
def deploy(pool: Annotated[str, typer.Option(help="The process work pool; made if there is none.")] = "local") -> None:
    """Register collect, turn and backfill with Prefect, for the workers of a pool to run."""
    ws = opened()
    from flows import registering

    say("\n".join(registering.deploy(ws, pool)))
    say(f"next: prefect worker start --pool {pool}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="A scratch folder for the demo's workspace.")] = Path("build/demo"),
    turns: Annotated[int, typer.Option(help="Weeks, with a turn of the wheel in each.", min=4)] = 20,
    seed: Annotated[int, typer.Option(help="Of the simulated world.", min=0)] = 7,
    http: Annotated[bool, typer.Option("--http", help="People ask a real server over real sockets.")] = False,
) -> None:
    """Live in three simulated worlds: the wheel turns, the model stays its first, the shelf is random."""
    from flows.demo import run_demo

    run_demo(folder, turns, seed, http=http, say=say, show_it=console().print, on_progress=progress)


def opened() -> "Workspace":
    """The workspace that `--workspace` names."""
    from flywheel.workspace import Workspace

    return Workspace.open(Path(os.environ["FLYWHEEL_WORKSPACE"]))


def instant(text: str | None) -> datetime:
    """The instant that a person means; now, without one."""
    from flywheel.config import read_time

    return datetime.now(UTC) if text is None else read_time(text)


def console() -> "Console":
    """Where people look; as wide as it takes where it is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def say(text: str) -> None:
    """Print a line."""
    print(text)


def out(as_json: bool, value: Any, show: Callable[[], None]) -> None:
    """Print a value as JSON, or shown to a person."""
    if as_json:
        print(
            json.dumps(
                asdict(value) if is_dataclass(value) and not isinstance(value, type) else value,
                default=plain,
                indent=2,
                ensure_ascii=False,
            )
        )
    else:
        show()


def plain(value: object) -> object:
    """What JSON has no word for."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.isoformat() if isinstance(value, datetime) else str(value)


def progress() -> "AbstractContextManager[Listener]":
    """How far a long command is, on standard error."""
    from flows.bars import bars

    return bars(lambda line: print(line, file=sys.stderr, flush=True))


def main() -> None:
    """Run the command; an error is told in a few lines, with its exit code, and no traceback without --debug."""
    from flywheel.errors import FlywheelError

    debug = "--debug" in sys.argv[1:]
    gc.set_threshold(50_000, 20, 20)  # the libraries make objects by the hundred thousand as they are imported
    signal.signal(signal.SIGTERM, _stop)
    try:
        app()
    except FlywheelError as error:
        if debug:
            raise
        print(f"flywheel: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if debug:
            raise
        where = f"\n  where: {error.filename}" if error.filename else ""
        print(f"flywheel: {error.strerror or error}{where}\n  next:  flywheel --debug status", file=sys.stderr)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code in STOPPED:
            print("flywheel: stopped; run the same command again to resume", file=sys.stderr)
        raise


def _stop(number: int, _frame: object) -> None:
    """End as an interrupt does: what is open is closed, and nothing is begun any more."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
