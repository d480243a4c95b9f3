"""The main job end to end in a scratch workspace: a simulated product, its log, its generations, one picture."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa

from flows import inspect, run, show, starting
from flows.run import Watch
from flywheel.errors import ConfigError
from flywheel.measure.picture import quality_against_data
from flywheel.simulator.deliveries import spoil_rows, write_deliveries, write_table
from flywheel.simulator.log import Log, example, simulate
from flywheel.workspace import Workspace

MARK = ".flywheel-demo"  # only a folder with this file in it is ever cleared


def run_demo(
    folder: Path, weeks: int, *, say: Callable[[str], None], show_it: Callable[[object], None], on_progress: Watch
) -> None:
    """Simulate, make a workspace from the log, make its generations, take in a spoiled week, and draw it all.

    Raises:
        ConfigError: the folder holds something that is not an earlier demo.
    """
    _clear(folder)
    log = _simulated(weeks + 1)
    *clean, last = _by_week(log.events)
    for events in clean:
        write_deliveries(folder / "log", events)
    rows, users = sum(events.num_rows for events in clean), log.users.num_rows
    say(f"A small streaming service with a random shelf, {weeks} weeks of it: {rows:,} rows, {users:,} users.")
    root = folder / "streaming"
    roles = {"timestamp": "ts", "label": "watched", "user": "user_id", "item": "item_id", "label_time": "watched_ts"}
    say(f"\n$ flywheel init {root} --from '{folder}/log/*.parquet' --timestamp ts --label watched …\n")
    started = starting.start(root, str(folder / "log" / "*.parquet"), {**roles, "outcomes": ("minutes",)})  # type: ignore[typeddict-item]
    show_it(show.proposal(started.proposal))
    ws = Workspace.open(root)
    say("\n$ flywheel backfill --every 7d --promote && flywheel generations\n")
    run.backfill(ws, "7d", (None, None), promote=True, dry_run=False, wait=False, on_progress=on_progress)
    show_it(show.generations(inspect.generations(ws), ws.config.metric))

    spoiled, _ = spoil_rows(last, seed=1)
    write_table(spoiled, folder / "log" / "spoiled.parquet")
    as_of = log.events["ts"][-1].as_py() + timedelta(days=3)
    say(f"\nThe next week arrives spoiled.\n\n$ flywheel turn --as-of {as_of:%Y-%m-%d}\n")
    turned = run.turn(ws, as_of, promote=True, wait=False, on_progress=on_progress)
    show_it(show.turned(turned, inspect.closed(ws, turned.closed)))
    say("\n$ flywheel status\n")
    show_it(show.status(inspect.status(ws)))

    made = inspect.generations(ws)
    picture = folder / "quality-against-data.png"
    quality_against_data(made, ws.config.metric, ws.config.product.name, picture)
    say(f"\nThe picture: {picture}")
    say(f"Look on:     flywheel -C {root} ui            quality against data, in MLflow's own chart")
    say(f"             flywheel -C {root} explain {made[-1].generation}     where it came from, and why")


def _simulated(weeks: int) -> Log:
    given = example()
    given["days"] = weeks * 7
    return simulate(**given)


def _by_week(events: pa.Table) -> list[pa.Table]:
    """The log cut into the weeks that it is delivered in."""
    seconds = events["ts"].cast(pa.int64()).to_numpy() // 1_000_000
    week = (seconds - int(example()["start"].timestamp())) // (7 * 86_400)
    return [events.filter(pa.array(week == index)) for index in range(int(week.max()) + 1)]


def _clear(folder: Path) -> None:
    """Begin with an empty folder; an earlier demo is removed, anything else is left alone."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            raise ConfigError(f"{folder} is not empty, and not an earlier demo", next="flywheel demo ANOTHER_FOLDER")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
