"""Durable arrival in one process: single events and batches of 100, checked and deduplicated, against a commit each.

    python tests/benchmarks/inbox.py [FOLDER] [--postgres URL]        (FOLDER: the disk to write to)

Ids are random, as clients make them, so that each event touches a page of its own, the more so the more there are;
ids that grow with time do not. CPU is that of this process, all its threads, and tells more than the clock where
others are busy too. The peers: SQLAlchemy with one commit an event (one thread, which is the most that
SQLite gives it), and batches of 100 by the standard library's sqlite3 alone, as bare as they come. Rounds take turns,
the median counts. The last line is about the interpreter's lock: a group beside a thread that computes all the time.
"""

import argparse
import os
import sqlite3
import statistics
import tempfile
import threading
import time
import uuid
from pathlib import Path

import machine
import sqlalchemy as sa

from flywheel.events import Decision, Outcome, Shown
from flywheel.sources.group_commit import GroupCommit
from flywheel.sources.inbox import Inbox

ROUNDS = 5
SINGLE, BATCHES, PEER = 6_000, 400, 400
CLIENTS = 32


def outcomes(count, *, growing=False):
    """Outcomes of decisions whose ids grow with time, as the server makes them; their own are random, or grow too."""
    now = time.time_ns()
    names = [f"{now + k:x}" if growing else uuid.uuid4().hex for k in range(count)]
    return [
        Outcome(name, f"{now // 1000 + k // 3:x}", f"item{k % 1000}", float(k % 2), now // 1000 + k)
        for k, name in enumerate(names)
    ]


def decisions(count):
    """Decisions of ten slots out of 50 candidates."""
    now = time.time_ns() // 1000
    items = tuple(f"item{k}" for k in range(50))
    shown = tuple(
        Shown(item, 0.1, explored=False, features=2**63, attributes={"genre": "drama"}) for item in items[:10]
    )
    context = {"hour": 7.0, "device": "tv"}
    return [
        Decision(f"{now + k:x}", now + k, "user", 1, "wheel", 7, "recipe", context, shown, items) for k in range(count)
    ]


def sync_ms(folder):
    """Median and 90th percentile of writing 8 KiB and syncing them, in ms."""
    times = []
    with (folder / "raw").open("wb", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(8192))
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - began) * 1e3)
    return statistics.median(times), statistics.quantiles(times, n=10)[-1]


def one_commit_each(folder, events):
    """Events per second of SQLAlchemy with a commit an event."""
    engine = sa.create_engine(f"sqlite:///{folder / 'each.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.exec_driver_sql("PRAGMA synchronous = FULL")
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS o (id TEXT UNIQUE, d TEXT, i TEXT, v REAL, ts INTEGER)")
    insert = sa.text("INSERT INTO o VALUES (:a, :b, :c, :d, :e) ON CONFLICT DO NOTHING")
    began = time.perf_counter()
    for e in events:
        with engine.begin() as connection:
            connection.execute(insert, {"a": e.event_id, "b": e.decision_id, "c": e.item, "d": e.value, "e": e.ts})
    engine.dispose()
    return len(events) / (time.perf_counter() - began)


def bare_batches(folder, batches):
    """Events per second of sqlite3 with a commit a batch."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS o (id TEXT UNIQUE, d TEXT, i TEXT, v REAL, ts INTEGER)")
    began = time.perf_counter()
    for batch in batches:
        connection.execute("BEGIN")
        rows = [(e.event_id, e.decision_id, e.item, e.value, e.ts) for e in batch]
        connection.executemany("INSERT OR IGNORE INTO o VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    connection.close()
    return sum(map(len, batches)) / (time.perf_counter() - began)


def cpu_us(run, count):
    """What a run returns, and the CPU time of each of its events in µs."""
    before = time.process_time()
    found = run()
    return found, (time.process_time() - before) / count * 1e6


def through_groups(inbox, batches, clients, *, decided=False):
    """Events per second, and the time that each batch took in ms, of as many clients, each sending when it was told."""
    group, times = GroupCommit(inbox), []

    def send(mine):
        for batch in mine:
            began = time.perf_counter()
            group.write(batch) if decided else group.write([], batch)
            times.append((time.perf_counter() - began) * 1e3)

    threads = [threading.Thread(target=send, args=(batches[k::clients],)) for k in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    group.close()
    return sum(map(len, batches)) / took, statistics.quantiles(times, n=100)


def beside_a_busy_thread(inbox, batches):
    """The median time in ms that a batch takes while the main thread computes."""
    times, ended = [], threading.Event()

    def send():
        for batch in batches:
            began = time.perf_counter()
            inbox.write([], batch)
            times.append((time.perf_counter() - began) * 1e3)
        ended.set()

    threading.Thread(target=send).start()
    while not ended.is_set():
        sum(range(1000))
    return statistics.median(times)


def measure(folder, url):
    inbox = Inbox.open(url, folder)
    found = {}
    for _ in range(ROUNDS):
        singles = [[e] for e in outcomes(SINGLE)]
        hundreds = [outcomes(100) for _ in range(BATCHES)]
        few, many = hundreds[: BATCHES // 2], hundreds[BATCHES // 2 :]
        bare, each = [outcomes(100) for _ in range(BATCHES // 2)], outcomes(PEER)
        grown = [outcomes(100, growing=True) for _ in range(BATCHES // 2)]
        made = [[d] for d in decisions(SINGLE // 2)]
        runs = {
            "single": (SINGLE, lambda sent=singles: through_groups(inbox, sent, CLIENTS)),
            "decisions": (len(made), lambda sent=made: through_groups(inbox, sent, CLIENTS, decided=True)),
            "hundreds, 1 client": (100 * len(few), lambda sent=few: through_groups(inbox, sent, 1)),
            "hundreds, 8 clients": (100 * len(many), lambda sent=many: through_groups(inbox, sent, 8)),
            "the same, growing ids": (100 * len(grown), lambda sent=grown: through_groups(inbox, sent, 8)),
            "sent again, 8 clients": (100 * len(many), lambda sent=many: through_groups(inbox, sent, 8)),
            "one commit each": (PEER, lambda sent=each: (one_commit_each(folder, sent), None)),
            "bare hundreds": (100 * len(bare), lambda sent=bare: (bare_batches(folder, sent), None)),
        }
        for name, (count, run) in runs.items():
            (rate, times), cpu = cpu_us(run, count)
            found.setdefault(name, []).append((rate, times, cpu))
    kept = inbox.arrived()["outcomes"].kept
    assert kept == ROUNDS * (SINGLE + 150 * BATCHES), kept
    busy = beside_a_busy_thread(inbox, [outcomes(100) for _ in range(30)])
    inbox.close()
    return found, busy


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--postgres", metavar="URL")
    asked = parser.parse_args()
    print(machine.describe("sqlalchemy", "msgspec"), f"SQLite {sqlite3.sqlite_version}")
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        print("8 KiB written and synced: median {:.2f} ms, 90 % {:.2f} ms".format(*sync_ms(folder)))
        found, busy = measure(folder, asked.postgres)
    rates = {}
    print(f"\n{ROUNDS} rounds, medians{'events/s':>16}{'CPU µs':>9}{'p50 ms':>9}{'p99 ms':>9}")
    for name, rounds in found.items():
        rates[name] = statistics.median(rate for rate, _, _ in rounds)
        waits = [f"{statistics.median(t[at] for _, t, _ in rounds):9.1f}" for at in (49, 98)] if rounds[0][1] else []
        cpu = statistics.median(cpu for _, _, cpu in rounds)
        print(f"{name:24}{rates[name]:10,.0f}{cpu:9.1f}{''.join(waits)}")
    print(f"a batch of 100 beside a thread that computes: median {busy:.1f} ms\n")
    p99 = statistics.median(times[98] for _, times, _ in found["single"])
    ratio = rates["single"] / rates["one commit each"]
    print(f"single events of 32 clients: {ratio:.1f} × one commit an event, which waits for a sync to disk each time")
    machine.ceiling("p99 of a single event", p99, 60, "{:.1f} ms")
    machine.bar("events/s in batches of 100", rates["hundreds, 8 clients"], 60_000, "{:,.0f}")


if __name__ == "__main__":
    main()
