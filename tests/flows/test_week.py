"""A week of a product that turns by itself, lived in a minute while its parts fail, a fault a day.

It has served for three weeks and has a champion. In each hour people ask the real server and windows are
collected; each night at three the wheel turns, in a process of its own; four times a day the monitor looks. Then

    day 1, noon       a person makes another generation the champion
    day 2, noon       the server is killed while many ask
    day 3, 03:00      the turn is killed half recorded, and nobody is there to do anything until nine
    day 4, all day    MLflow's database is away
    day 5, 03:00      Prefect's API is killed in the middle of the turn, and comes back at noon of day 6
    day 6, midnight   the disk is full, when a window should close
    day 7             all is well

Whoever asks writes down what was acknowledged. A day after the last of it, all of it is accounted for.
"""

import os
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest

from flows import inspect, journal, standing
from flows.demo import World
from flows.products import InProcess
from flywheel.data import dataset
from flywheel.simulator.society import Habits, begin
from flywheel.sources.inbox import Inbox
from flywheel.workspace import Workspace
from tests.flows import live
from tests.flows.shell import Shell
from tests.flows.test_full_disk import disk, fill
from tests.flows.test_serve import ASK, until
from tests.flows.week import DAY, Event, History, Week, collect, due, monitor, turn
from tests.integration.door_world import Client, Reply
from tests.integration.test_server_life import THREADS, Load

BEGINS = live.START + 21 * DAY
ENDS = BEGINS + 7 * DAY
HOUR = timedelta(hours=1)
OVER = ENDS + DAY + 3 * HOUR  # the turn of this night meets the week's last window, closed
NIGHT = [BEGINS + day * DAY + 3 * HOUR for day in range(-1, 7)]  # by the number of its day
SETTINGS = replace(live.SETTINGS, users=240)
CHANGES = {
    "windows": {"every": "1d", "attribution": "1d", "silence": 0},
    "exam": {"windows": 1, "rows": 100},  # each night's is the newest window
    "schedule": {"monitor": "6h"},
}


def another_champion(week: Week, when: datetime) -> None:
    number = next(g.generation for g in inspect.generations(week.ws) if g.generation != week.champion)
    done = week.shell.run(week.ws.root, "promote", str(number), "--why", "to see it served")
    assert done.code == 0, done.said


def stranger(client: Client, number: int) -> Reply:
    return client("POST", "/v1/rank", ASK | {"user": f"stranger{number}"})


def server_killed(week: Week, when: datetime) -> None:
    with Load(f"http://{week.served.address}", stranger) as load:
        until(lambda: len(load.replies) >= 60, 60)
        week.served.process.kill()
        week.served.process.communicate()
    assert load.broken
    assert load.statuses == {200}
    for reply in load.replies:
        week.meet(reply.json)
    week.book.unsure += THREADS  # one of each client was on its way
    week.broken.append(week.serve)


def turn_killed(week: Week, when: datetime) -> None:
    week.failpoint, week.away_until = "record:mid", when + 6 * HOUR


def registry_away(week: Week, when: datetime) -> None:
    store = week.ws.root / "mlruns"
    (store / "mlflow.db").rename(store / "away.db")


def registry_back(week: Week, when: datetime) -> None:
    store = week.ws.root / "mlruns"
    (store / "away.db").rename(store / "mlflow.db")


def turn_halted(week: Week, when: datetime) -> None:
    week.failpoint = "fit:mid halt"


def history_killed(week: Week, when: datetime) -> None:
    """While a turn fits, which then goes on."""
    assert week.turning
    pid = week.turning[1].pid
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, 60)
    week.history.kill()
    os.kill(pid, signal.SIGCONT)


def history_back(week: Week, when: datetime) -> None:
    week.history.begin()


def disk_full(week: Week, when: datetime) -> None:
    """Until those who ask are refused often enough."""
    ballast = fill(week.ws.root.parent, 0)
    week.broken.append(ballast.unlink)
    for number in range(2000):
        said = week.tried("/v1/rank", ASK | {"user": f"passer-by{number}"})
        if said is None:
            break
        week.meet(said)
    else:
        raise AssertionError("a full disk takes everything")


def disk_freed(week: Week, when: datetime) -> None:
    """If nobody was refused often enough to have seen to it."""
    week.mend()


FAULTS = [
    (BEGINS + 12 * HOUR, another_champion),
    (BEGINS + DAY + 12 * HOUR, server_killed),
    (NIGHT[3], turn_killed),
    (BEGINS + 3 * DAY, registry_away),
    (BEGINS + 4 * DAY, registry_back),
    (NIGHT[5], turn_halted),
    (NIGHT[5] + timedelta(minutes=1), history_killed),
    (BEGINS + 5 * DAY + 12 * HOUR, history_back),
]
FULL = [(BEGINS + 5 * DAY, disk_full), (BEGINS + 5 * DAY + timedelta(minutes=1), disk_freed)]


@pytest.fixture
def history() -> Iterator[list[History]]:
    begun: list[History] = []
    yield begun
    for one in begun:
        one.end()


def served_for_weeks(root: Path) -> tuple[Workspace, World]:
    ws = live.build(root, **CHANGES)
    product = InProcess(ws)
    world = World(begin(SETTINGS, Habits(candidates=12), start=live.START, seed=3), product)
    for days in (8, 6, 6):  # the last turn is a day ago: this night's has something to learn
        world.live(days)
        live.turn(ws, world)
        product.reload()
    world.live(1)
    product.close()
    return ws, world


def every_row(ws: Workspace, since: datetime) -> tuple[list[str], dict[tuple[str, str], float]]:
    """The event ids of all closed windows; and the label of each item of each decision of those since an instant."""
    names, labels = [], {}
    for line in ws.ledger():
        rows = dataset.read_window(ws.data, line.window, ["event_id", "request", "item", "label", "late"]).to_pylist()
        names += [row["event_id"] for row in rows]
        if line.start >= since:
            labels |= {(row["request"], row["item"]): row["label"] for row in rows}
            assert not any(row["late"] for row in rows)
    return names, labels


def every_row_is_there_once(week: Week) -> None:
    """What was shown is a row, once; besides at most what was written though nobody could be told."""
    names, labels = every_row(week.ws, BEGINS)
    assert [name for name, count in Counter(names).items() if count > 1] == []
    shown = {(decision, item) for decision, items in week.book.shown.items() for item in items}
    assert shown <= labels.keys()
    assert len({decision for decision, _ in labels} - week.book.shown.keys()) <= week.book.unsure
    assert dataset.totals(week.ws.ledger()).leaks == ()
    on_time = {shown for event, shown in week.book.heard.items() if event not in week.book.late}
    assert {key for key, label in labels.items() if label} == {key for key in on_time if key in labels}
    assert len(on_time - labels.keys()) < 100, "those of what was shown on the last day before the week"


def every_outcome_is_settled_once(week: Week, before: standing.Status) -> None:
    now = standing.status(week.ws).outcomes
    assert now
    assert before.outcomes
    assert (now.parked, now.decisions) == (0, 0)
    assert now.settled.late - before.outcomes.settled.late == len(week.book.late) > 0
    assert (now.settled.quarantined, now.settled.orphaned) == (0, 0)
    inbox = Inbox.open(None, week.ws.root)
    kept = inbox.arrived()["outcomes"].kept
    inbox.close()
    assert now.settled.joined + now.settled.late == kept
    with closing(sqlite3.connect(week.ws.inbox / "inbox.db")) as database:
        known = {name for (name,) in database.execute("SELECT id FROM outcomes")}
    assert week.book.heard.keys() <= known
    assert week.book.acknowledged > len(week.book.heard)  # some were told twice
    assert now.arrived - before.outcomes.arrived >= week.book.acknowledged


def every_missed_night_is_made_up_for_once(week: Week) -> None:
    """Two nights were missed, and the turn of the third learned from what they would have: one generation."""
    codes = {when: told.code for when, told in week.turns}
    assert list(codes) == [*NIGHT[1:], OVER]
    assert {when: code for when, code in codes.items() if code} == {NIGHT[3]: 137, NIGHT[4]: 1}
    warned = {when: told.err for when, told in week.turns if told.err and not told.code}
    assert list(warned) == [NIGHT[5], NIGHT[6]], "Prefect was killed in the one, and away in the other"
    assert "Prefect's history of this run has no end" in warned[NIGHT[5]]
    assert warned[NIGHT[6]].startswith("flywheel: This run leaves no Prefect history; ")
    assert warned[NIGHT[6]].count("\n") == 1
    made = [g for g in inspect.generations(week.ws) if g.as_of >= BEGINS]
    assert [g.as_of for g in made] == [*(NIGHT[n] for n in (1, 2, 5, 6, 7)), OVER]
    assert len({g.turn_id for g in made}) == len(made)
    assert [g.trained_windows[1] for g in made] == [f"{night - 4 * DAY:%Y-%m-%d}" for night in (g.as_of for g in made)]
    came = Counter(line["step"] for line in journal.read(week.ws.cache) if line["command"] == "turn")
    assert (came["killed"], came["failed"]) == (1, 1)
    assert came["promoted"] + came["kept"] + came["rejected"] == len(inspect.generations(week.ws))


def every_window_is_closed_once(week: Week) -> None:
    windows = [line.start for line in week.ws.ledger() if line.start >= BEGINS]
    assert windows == [BEGINS + day * DAY for day in range(7)]


def what_was_not_done_said_why(week: Week, full: bool) -> None:
    """Whatever was due while MLflow was away, or as a window closed on the full disk; and nothing else."""
    failed = {(run.name, run.when) for run in week.runs if run.ended != "Completed"}
    away = {(run.name, run.when) for run in week.runs if BEGINS + 3 * DAY <= run.when < BEGINS + 4 * DAY}
    assert failed == away | ({("collect", FULL[0][0])} if full else set())
    assert Counter(name for name, _ in away) == {"collect": 24, "monitor": 4}
    assert all(run.said.startswith("the workspace has no MLflow store") for run in week.runs if run[:2] in away)


def all_is_well(week: Week) -> None:
    found = standing.status(week.ws)
    assert (found.registry, found.now, found.killed) == ("", "", "")
    assert (found.still_open, found.waiting_rejected, found.champion) == (0, 0, week.champion)
    assert found.last_turn
    assert found.last_turn["step"] in ("promoted", "kept", "rejected")
    assert found.watched
    assert found.watched.as_of == OVER
    done = week.shell.run(week.ws.root, "status")
    assert (done.code, done.err) == (0, "")
    assert "nothing runs" in done.out


def history_goes_on(week: Week) -> None:
    """Prefect knows the turns of every night on which it was there, to their ends where it was there to the end."""
    with closing(sqlite3.connect(week.history.home / "prefect.db")) as database:
        told = dict(database.execute("SELECT name, state_type FROM flow_run"))
    ends = {f"turn as of {when}": "COMPLETED" for when in (NIGHT[1], NIGHT[2], NIGHT[7], OVER)}
    assert told == ends | {
        f"turn as of {NIGHT[3]}": "RUNNING",
        f"turn as of {NIGHT[4]}": "FAILED",
        f"turn as of {NIGHT[5]}": "RUNNING",
    }


@pytest.mark.slow
def test_a_week_of_faults_loses_nothing_and_counts_nothing_twice(
    tmp_path: Path, shell: Shell, history: list[History]
) -> None:
    with disk(tmp_path / "disk", 256) as mounted:  # elsewhere it is never full
        root = tmp_path / "disk" / "live"
        root.mkdir()
        history.append(History(root))
        ws, world = served_for_weeks(root)
        before = standing.status(ws)
        assert before.champion
        faults = [*FAULTS, *FULL] if mounted else FAULTS
        events = [Event(when, 0, act) for when, act in faults]
        events += [
            *due(ws.config.schedule, BEGINS, ENDS),
            Event(OVER, 1, collect),
            Event(OVER, 2, turn),
            Event(OVER, 3, monitor),
        ]
        week = Week(ws, shell, history[0], tmp_path / "clock", BEGINS, events)
        try:
            lived = world.fork(week)
            lived.live(7)
            week.receive([arrival.outcome for arrival in lived.waiting])
            week.live_until(OVER)
            week.end_turn()
        finally:
            week.close()
        every_row_is_there_once(week)
        every_outcome_is_settled_once(week, before)
        every_window_is_closed_once(week)
        every_missed_night_is_made_up_for_once(week)
        what_was_not_done_said_why(week, mounted)
        all_is_well(week)
        history_goes_on(week)
        history[0].end()  # before its folder is gone
