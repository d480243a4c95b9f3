"""What runs for longer than a command: the server, the pages, the schedules, the demo."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.terminal import AsOf, Json, console, instant, opened, out, progress, say

commands = typer.Typer()


@commands.command()
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


@commands.command()
def up(
    port: Annotated[int, typer.Option(help="To answer people on; 0 picks a free one.")] = 8000,
    prefect_port: Annotated[int, typer.Option(help="Of Prefect's pages.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Of MLflow's pages.")] = 5000,
) -> None:
    """Run all that a wheel needs to turn by itself: schedules, pages, and the server, on this machine's own address."""
    ws = opened()
    from flows import up as supervised

    supervised.up(ws, {"server": port, "prefect": prefect_port, "mlflow": mlflow_port}, say)


@commands.command()
def monitor(as_of: AsOf = None, as_json: Json = False) -> None:
    """Say whether the champion does harm; where it does and [monitor] lets it, go back to the one before."""
    ws = opened()
    from flows import run, show

    found = run.monitor(ws, instant(as_of))
    out(as_json, found, lambda: console().print(show.watched(found)))


@commands.command()
def deploy(pool: Annotated[str, typer.Option(help="The process work pool; made if there is none.")] = "local") -> None:
    """Register collect, turn, monitor and backfill with Prefect, for the workers of a pool to run."""
    ws = opened()
    from flows import registering

    say("\n".join(registering.deploy(ws, pool)))
    say(f"next: prefect worker start --pool {pool}")


@commands.command()
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


@commands.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="A scratch folder for the demo's workspace.")] = Path("build/demo"),
    turns: Annotated[int, typer.Option(help="Weeks, with a turn of the wheel in each.", min=4)] = 20,
    seed: Annotated[int, typer.Option(help="Of the simulated world.", min=0)] = 7,
    http: Annotated[bool, typer.Option("--http", help="People ask a real server over real sockets.")] = False,
) -> None:
    """Live in three simulated worlds: the wheel turns, the model stays its first, the shelf is random."""
    from flows.demo import run_demo

    run_demo(folder, turns, seed, http=http, say=say, show_it=console().print, on_progress=progress)
