"""Durable arrival over HTTP: single events, batches of 100, and kills.

    python tests/benchmarks/ingest.py [--quick] [--kills N]

Single outcomes from 32 clients, beside FastAPI + SQLAlchemy with one commit an event, both on SQLite in WAL mode with
synchronous=FULL on the same disk; then batches of 100, checked and deduplicated (one event in 50 was sent before).
With `--kills N` nothing but this: the server is killed (SIGKILL) N times under load, and at the end every acknowledged
event must be there exactly once.
"""

import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import machine
import wheel
from serving import HERE, await_port, free_port, good, line, load, others, posts, server

CLIENTS = 32
PLACE = "@" * 12  # load.py puts the request's number here


def single(prefix="e"):
    return f'{{"event_id":"{prefix}{PLACE}","decision_id":"019b76da-a800-7000-8000-{PLACE}","item":"item7","value":1}}'


def batch():
    """100 outcomes, of which two carry the id of an earlier one."""
    items = [single(f"{i:03d}-") for i in range(98)]
    return f"[{','.join([*items, items[0], items[1]])}]"


def singles(folder, quick):
    seconds, found = 3 if quick else 12, {}
    print(f"\nsingle events, {CLIENTS} clients in a closed loop, {seconds} s, best of 2 in turns")
    requests = posts("/v1/outcomes", [single()])
    peer = [HERE / "serving_peers.py", "fastapi", folder, free_port()]
    for turn in range(2):
        for name, command in (("flywheel", [HERE / "wheel.py", folder, 0]), ("FastAPI + SQLAlchemy", peer)):
            with server(*command) as port:
                seen = load(port, requests, rate=None, seconds=seconds)
            line(f"{name}, {turn + 1}", seen)
            if good(seen) / seconds > found.get(name, (0, 0))[0]:
                found[name] = good(seen) / seconds, seen["latency"]["200"]["p99"]
            assert others(seen) == 0, seen
    machine.beside("single events, durable", "/s", {name: rate for name, (rate, _) in found.items()})
    ours, theirs = found["flywheel"], found["FastAPI + SQLAlchemy"]
    return [
        machine.bar("of FastAPI + SQLAlchemy, one commit an event", ours[0] / theirs[0], 8),
        machine.ceiling("p99", ours[1], 60, "{:.1f} ms"),
    ]


def batches(folder, quick):
    seconds = 3 if quick else 12
    print(f"\nbatches of 100, 8 clients in a closed loop, {seconds} s")
    with server(HERE / "wheel.py", folder, 0) as port:
        seen = load(port, posts("/v1/outcomes", [batch()]), rate=None, seconds=seconds, clients=8)
    line("batches", seen)
    with sqlite3.connect(folder / "inbox" / "inbox.db") as inbox:
        kept = inbox.execute("SELECT count(*), count(DISTINCT id) FROM outcomes").fetchone()
    assert kept == (98 * good(seen), 98 * good(seen)), (kept, good(seen))
    return [machine.bar("events a second", 100 * good(seen) / seconds, 30_000, "{:,.0f}")]


def kills(folder, rounds):
    """Kill the server under load again and again, on one inbox."""
    draw, acked = random.Random(0), {"decisions": set(), "outcomes": set()}
    wheel.prepare(folder)
    rank = posts("/v1/rank", wheel.bodies(200))
    for turn in range(rounds):
        process = subprocess.Popen(
            [sys.executable, str(HERE / "wheel.py"), str(folder), "0", "0", "keep"], stdout=subprocess.PIPE, text=True
        )
        port = int(process.stdout.readline().strip().rpartition(":")[2])
        await_port(port)
        requests = [*posts("/v1/outcomes", [single(f"{turn}-")]), rank[turn % len(rank)]]
        log = folder / f"acked{turn}"
        plan = {"requests": requests, "rate": 600, "seconds": 3, "clients": CLIENTS, "acked": log}
        lasts = 0.3 + draw.random() * 0.7
        killer = subprocess.Popen(["sh", "-c", f"sleep {lasts}; kill -9 {process.pid}"])
        load(port, plan.pop("requests"), **plan | {"seconds": lasts + 0.1})
        killer.wait()
        assert process.wait() == -signal.SIGKILL
        for row in log.read_text().splitlines():
            number, _, decision = row.partition(" ")
            if decision:
                acked["decisions"].add(decision)
            else:
                acked["outcomes"].add(f"{turn}-{int(number):012d}")
        log.unlink()
        print(f"\r  killed {turn + 1} times, {sum(map(len, acked.values())):,} events acknowledged", end="", flush=True)
    print()
    met = []
    with sqlite3.connect(folder / "inbox" / "inbox.db") as inbox:
        for table, told in acked.items():
            ids = [id for (id,) in inbox.execute(f"SELECT id FROM {table}")]
            met.append(machine.ceiling(f"acknowledged {table} that are not there", len(told - set(ids)), 0, "{:.0f}"))
            met.append(machine.ceiling(f"{table} that are there twice", len(ids) - len(set(ids)), 0, "{:.0f}"))
            assert told, table
    return met


def main(arguments):
    print(machine.describe("uvicorn", "msgspec", "sqlalchemy", "fastapi"))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if "--kills" in arguments:
            return all(kills(folder, int(arguments[arguments.index("--kills") + 1])))
        wheel.prepare(folder)
        quick = "--quick" in arguments
        return all([*singles(folder, quick), *batches(folder, quick)])


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
