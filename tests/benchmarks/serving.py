"""The door under load, beside bare Starlette + msgspec around the same prediction and `mlflow models serve`.

    python tests/benchmarks/serving.py [--quick] [PART ...]

The parts, all without an argument: `latency` (200 requests/s, open loop), `most` (what it sustains, against the
peers), `overload` (3 × that for 30 s, then 200/s again), `swap` (another generation read, checked and taken up every
second), `crowd` (5,000 idle sockets, slow and endless bodies beside 200 requests/s). 50 candidates, 300 trees of depth
6, 20 features, every decision on disk before it is answered. The generator has a process of its own (`load.py`) on the
same machine.
"""

import contextlib
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import machine
import serving_peers
import wheel

HERE = Path(__file__).parent
RATE = 200
CLIENTS = 16
PARTS = ("latency", "most", "overload", "swap", "crowd")


def posts(path, bodies):
    """Requests as bytes on the wire, written as text."""
    sent = []
    for body in bodies:
        text = body if isinstance(body, str) else json.dumps(body, separators=(",", ":"))
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        sent.append(f"{head}content-length: {len(text)}\r\n\r\n{text}")
    return sent


@contextmanager
def server(*command):
    """A server in a process of its own, from when it has told its URL; gives its port."""
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline().strip().rpartition(":")[2])
        await_port(port)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def await_port(port, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nobody answers on {port}")


def load(port, requests, *, rate, seconds, clients=CLIENTS, acked=None, seed=0):
    """What a generator of its own process saw."""
    plan = {"host": "127.0.0.1", "port": port, "requests": requests, "rate": rate, "seconds": seconds}
    plan |= {"clients": clients, "acked": acked and str(acked), "seed": seed}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(plan, file)
        file.flush()
        done = subprocess.run(
            [sys.executable, str(HERE / "load.py"), file.name], capture_output=True, text=True, check=True
        )
    return json.loads(done.stdout)


def good(seen):
    return seen["statuses"].get("200", 0)


def others(seen):
    """Everything but a 200."""
    return seen["sent"] - good(seen)


def line(what, seen):
    took = seen["latency"].get("200", {})
    print(f"  {what:34} {good(seen) / seen['seconds']:7.0f}/s  p50 {took.get('p50', 0):6.2f} ms"
          f"  p99 {took.get('p99', 0):7.2f} ms  most {took.get('max', 0):7.1f} ms  not 200: {others(seen)}"
          f"  (sent late: p99 {seen['late'].get('p99', 0):.2f} ms)")  # fmt: skip


def ours(folder, *more):
    return server(HERE / "wheel.py", folder, 0, *more)


def latency(folder, quick):
    runs, seconds = (1, 5) if quick else (3, 30)
    requests, seen = posts("/v1/rank", wheel.bodies(2000)), []
    print(f"\n/v1/rank at {RATE}/s, open loop, {runs} × {seconds} s")
    for run in range(runs):
        with ours(folder) as port:
            load(port, requests, rate=RATE, seconds=2)
            seen.append(load(port, requests, rate=RATE, seconds=seconds, seed=run))
            line(f"run {run + 1}", seen[-1])
    p50, p99 = (statistics.median(s["latency"]["200"][q] for s in seen) for q in ("p50", "p99"))
    met = [machine.ceiling("p50", p50, 6, "{:.2f} ms"), machine.ceiling("p99", p99, 25, "{:.2f} ms")]
    return [*met, machine.ceiling("requests not answered with a 200", sum(map(others, seen)), 0, "{:.0f}")]


def most(folder, quick):
    seconds = 4 if quick else 15
    requests, found = posts("/v1/rank", wheel.bodies(2000)), {}
    print(f"\nthe most that is sustained, {CLIENTS} clients in a closed loop, {seconds} s, best of 2 in turns")
    bare = [HERE / "serving_peers.py", "bare", folder, free_port()]
    for turn in range(2):
        for name, command in (("flywheel", [HERE / "wheel.py", folder, 0]), ("bare Starlette + msgspec", bare)):
            with server(*command) as port:
                load(port, requests, rate=None, seconds=1)
                seen = load(port, requests, rate=None, seconds=seconds)
            line(f"{name}, {turn + 1}", seen)
            found[name] = max(found.get(name, 0), good(seen) / seconds)
    found["mlflow"] = mlflow(folder, seconds)
    machine.beside("ranked lists of 50 candidates", "/s", found)
    return [
        machine.bar("of bare Starlette + msgspec", found["flywheel"] / found["bare Starlette + msgspec"], 0.6),
        machine.bar("of mlflow models serve", found["flywheel"] / found["mlflow"], 8),
    ]


def mlflow(folder, seconds):
    """`mlflow models serve` with the same model, given the features."""
    import numpy as np

    path, port = serving_peers.save_for_mlflow(folder), free_port()
    rng = np.random.default_rng(0)
    frames = [
        {"dataframe_split": {"columns": list(wheel.SPEC.names), "data": wheel.matrix(rng, 50).tolist()}}
        for _ in range(200)
    ]
    command = ["-m", "mlflow", "models", "serve", "-m", path, "-p", port, "--env-manager", "local"]
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # it starts `uvicorn` by name
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
        env=os.environ | path,
    )
    try:
        await_port(port, 180)
        requests = posts("/invocations", frames)
        load(port, requests, rate=None, seconds=1, clients=8)
        seen = load(port, requests, rate=None, seconds=seconds, clients=8)
        line("mlflow models serve", seen)
        return good(seen) / seconds
    finally:
        subprocess.run(["kill", "--", f"-{process.pid}"], check=False)
        process.wait(30)


def overload(folder, quick):
    seconds = 6 if quick else 30
    requests, acked = posts("/v1/rank", wheel.bodies(2000)), folder / "acked"
    with ours(folder) as port:
        load(port, requests, rate=None, seconds=1)
        capacity = good(load(port, requests, rate=None, seconds=3)) / 3
        print(f"\n3 × {capacity:.0f}/s for {seconds} s, then {RATE}/s")
        seen = load(port, requests, rate=3 * capacity, seconds=seconds, clients=512, acked=acked)
        line("overloaded", seen)
        shed = seen["latency"].get("503", {})
        print(
            f"  sent away: {seen['statuses'].get('503', 0):,}, p50 {shed.get('p50', 0)} ms, p99 {shed.get('p99', 0)} ms"
        )
        after = load(port, requests, rate=RATE, seconds=8)
        line("afterwards", after)
    kept = {id for (id,) in sqlite3.connect(folder / "inbox" / "inbox.db").execute("SELECT id FROM decisions")}
    told = {row.split()[1] for row in acked.read_text().splitlines()}
    late = [second for second in range(5, 8) if after["per_second"].get(f"{second} 503")]
    return [
        machine.ceiling("p99 of what is accepted", seen["latency"]["200"]["p99"], 100, "{:.0f} ms"),
        machine.ceiling("p99 of being sent away", shed.get("p99", 0), 100, "{:.0f} ms"),
        machine.bar("of the capacity is still served", good(seen) / seconds / capacity, 0.5),
        machine.ceiling("neither 200 nor 503", others(seen) - seen["statuses"].get("503", 0), 0, "{:.0f}"),
        machine.ceiling("seconds with a 503, from 5 s after", len(late), 0, "{:.0f}"),
        machine.ceiling("acknowledged decisions that are not on disk", len(told - kept), 0, "{:.0f}"),
    ]


def swap(folder, quick):
    seconds = 6 if quick else 30
    print(f"\nanother generation every second, {RATE}/s for {seconds} s")
    with ours(folder, 1) as port:
        seen = load(port, posts("/v1/rank", wheel.bodies(2000)), rate=RATE, seconds=seconds)
    line("swapped", seen)
    return [machine.ceiling("failed requests", others(seen), 0, "{:.0f}")]


def crowd(folder, quick):
    seconds, idle = (5, 1000) if quick else (20, 5000)
    requests = posts("/v1/rank", wheel.bodies(2000))
    print(f"\n{idle:,} idle sockets, 50 that send a byte a second, one that sends a gigabyte, beside {RATE}/s")
    with ours(folder) as port:
        load(port, requests, rate=RATE, seconds=2)
        alone = load(port, requests, rate=RATE, seconds=seconds)
        line("alone", alone)
        with hostile(port, idle):
            beside = load(port, requests, rate=RATE, seconds=seconds)
        line("beside the crowd", beside)
    ratio = beside["latency"]["200"]["p99"] / alone["latency"]["200"]["p99"]
    return [
        machine.ceiling("p99 alone", ratio, 2),
        machine.ceiling("failed requests", others(beside), 0, "{:.0f}"),
    ]


@contextmanager
def hostile(port, idle):
    """Clients that nobody would miss, for as long as it lasts."""
    stop, at = threading.Event(), ("127.0.0.1", port)
    sockets = [socket.create_connection(at) for _ in range(idle + 50)]
    threads = [threading.Thread(target=work, args=(at, sockets[:50], stop)) for work in (drip, flood)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for connection in sockets:
            connection.close()


def drip(_, slow, stop):
    """A byte a second on each connection."""
    for byte in posts("/v1/rank", ["x" * 1000])[0].encode():
        for connection in slow:
            with contextlib.suppress(OSError):
                connection.send(bytes([byte]))
        if stop.wait(1):
            return


def flood(at, _, stop):
    """A gigabyte, again and again."""
    head = posts("/v1/rank", ["x" * 1000])[0].encode().replace(b"length: 1000", b"length: 1000000000")
    while not stop.wait(0.5):
        with contextlib.suppress(OSError), socket.create_connection(at) as connection:
            connection.sendall(head)
            for _ in range(1000):
                connection.sendall(bytes(2**20))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def main(arguments):
    quick = "--quick" in arguments
    parts = [name for name in arguments if name != "--quick"] or PARTS
    print(machine.describe("uvicorn", "starlette", "msgspec", "xgboost-cpu", "mlflow", "sqlalchemy"))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        wheel.prepare(folder)
        met = [ok for name in parts for ok in globals()[name](folder, quick)]
    return all(met)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
