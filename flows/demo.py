"""The main job end to end in a scratch workspace: a simulated product, its log, its generations, one picture."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from flows import inspect, run, show, starting
from flows.run import Watch
from flywheel.errors import ConfigError
from flywheel.measure.picture import quality_against_data
from flywheel.simulator.deliveries import write_deliveries
from flywheel.simulator.log import example, simulate
from flywheel.workspace import Workspace

MARK = ".flywheel-demo"  # only a folder with this file in it is ever cleared


def run_demo(
    folder: Path, weeks: int, *, say: Callable[[str], None], show_it: Callable[[object], None], on_progress: Watch
) -> None:
    """Simulate, make a workspace from the log, make its generations, and draw them.

    Raises:
        ConfigError: the folder holds something that is not an earlier demo.
    """
    _clear(folder)
    say(f"A small streaming service, {weeks} weeks of it, a random shelf (everything is in {folder})")
    given = example()
    given["days"] = weeks * 7
    log = simulate(**given)
    write_deliveries(folder / "log", log.events, every=timedelta(days=7))
    say(f"{log.events.num_rows:,} rows of {log.users.num_rows:,} users and {log.items.num_rows:,} items\n")
    root = folder / "streaming"
    roles = {"timestamp": "ts", "label": "watched", "user": "user_id", "item": "item_id", "label_time": "watched_ts"}
    started = starting.start(root, str(folder / "log" / "*.parquet"), {**roles, "outcomes": ("minutes",)})  # type: ignore[typeddict-item]
    show_it(show.proposal(started.proposal))
    ws = Workspace.open(root)
    say("\nflywheel backfill --every 7d --promote")
    run.backfill(ws, "7d", (None, None), promote=True, dry_run=False, wait=False, on_progress=on_progress)
    made = inspect.generations(ws)
    show_it(show.generations(made, ws.config.metric))
    show_it(show.status(inspect.status(ws)))
    picture = folder / "quality-against-data.png"
    quality_against_data(made, ws.config.metric, ws.config.product.name, picture)
    say(f"\nThe picture: {picture}")
    say(f"Look on:     flywheel -C {root} ui            quality against data, in MLflow's own chart")
    say(f"             flywheel -C {root} explain {made[-1].generation}     where it came from, and why")


def _clear(folder: Path) -> None:
    """Begin with an empty folder; an earlier demo is removed, anything else is left alone."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise ConfigError(f"{folder} is not empty, and not an earlier demo", next="flywheel demo ANOTHER_FOLDER")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
