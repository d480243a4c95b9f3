"""A load generator in a process of its own: raw requests over keep-alive sockets, timed from when they were due.

    python tests/benchmarks/load.py PLAN.json          (prints what came back as one JSON object)

An open loop sends by a Poisson schedule, whether or not earlier requests were answered; a request that found every
connection busy has been waiting since it was due, so a stall of the server is counted in full (no coordinated
omission). A closed loop (`rate: null`) keeps every client busy. The plan:

    {"host": "127.0.0.1", "port": 8000, "requests": ["POST / HTTP/1.1\\r\\n…", …], "rate": 200, "seconds": 30,
     "clients": 64, "seed": 0, "acked": null}

`@@@@@@@@@@@@` in a request is replaced by its number, so that ids differ; `acked` names a file that gets a line for
each 2xx: the number, and x-decision-id where there is one. One thread sends and one receives: a sleeping thread is
woken within 0.1 ms, a timer of an event loop within 1 ms.
"""

import json
import random
import select
import socket
import sys
import threading
import time
from array import array
from collections import Counter, deque
from pathlib import Path

PLACE = b"@" * 12
GIVE_UP = 10.0  # s after the last request was due


class Load:
    """One run; connections are made as they are needed, up to `clients`."""

    def __init__(self, plan):
        self.at = (plan["host"], plan["port"])
        self.requests = [text.encode("latin-1") for text in plan["requests"]]
        self.clients = plan["clients"]
        self.epoll = select.epoll()
        self.open, self.free, self.waiting = {}, deque(), deque()
        self.lock = threading.Lock()
        self.latencies = {}  # by status: s from when it was due
        self.finished = []  # (s since the start when it was due, status, latency)
        self.late = array("d")
        self.lost = 0
        self.acked = Path(plan["acked"]).open("w") if plan.get("acked") else None  # noqa: SIM115
        self.sent = self.answered = 0
        self.start = 0.0

    def bytes_of(self, number):
        request = self.requests[number % len(self.requests)]
        return request.replace(PLACE, b"%012d" % number) if PLACE in request else request

    def connect(self):
        connection = socket.create_connection(self.at, timeout=5)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self.open[connection.fileno()] = [connection, None, b""]
        self.epoll.register(connection.fileno(), select.EPOLLIN)
        return connection.fileno()

    def give(self, due, number):
        """Send on a free connection, or leave it to the receiver to do so as soon as there is one."""
        with self.lock:
            self.sent += 1
            fd = self.free.popleft() if self.free else self.another()
            if fd is None:
                self.waiting.append((due, number))
                return
        self.send(fd, due, number)

    def another(self):
        """One more connection, or None: there are enough, or nobody answers."""
        if len(self.open) >= self.clients:
            return None
        try:
            return self.connect()
        except OSError:
            return None

    def send(self, fd, due, number):
        entry = self.open.get(fd)
        if entry is None:
            return
        entry[1] = (due, number)
        try:
            entry[0].send(self.bytes_of(number))
        except OSError:
            self.drop(fd)

    def drop(self, fd):
        """A connection ended; what was asked on it is lost."""
        with self.lock:
            entry = self.open.pop(fd, None)
            if entry is None:
                return
            if fd in self.free:
                self.free.remove(fd)
            if entry[1] is not None:
                self.lost += 1
                self.answered += 1
            entry[0].close()
        self.next_one(None)

    def next_one(self, fd):
        """A connection is free (None: there is a place for one): the longest waiting request is next."""
        with self.lock:
            if fd is None:
                fd = self.another()
            if fd is None and not self.open:  # nobody is there any more
                self.lost += len(self.waiting)
                self.answered += len(self.waiting)
                self.waiting.clear()
            if fd is None:
                return
            if not self.waiting:
                self.free.append(fd)
                return
            due, number = self.waiting.popleft()
        self.send(fd, due, number)

    def receive(self, until):
        while time.perf_counter() < until():
            for fd, _ in self.epoll.poll(0.05):
                self.read(fd)

    def read(self, fd):
        entry = self.open.get(fd)
        if entry is None:
            return
        try:
            data = entry[0].recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop(fd)
            return
        entry[2] += data
        head, found, rest = entry[2].partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(rest) < length:
            return
        entry[2] = b""
        (due, number), entry[1] = entry[1], None
        self.answer(lower, due, number)
        if b"connection: close" in lower:
            self.drop(fd)
        else:
            self.next_one(fd)

    def answer(self, head, due, number):
        took = time.perf_counter() - due
        status = int(head[9:12])
        self.answered += 1
        self.finished.append((due - self.start, status, took))
        if self.acked and status < 300:
            decision = head.partition(b"x-decision-id: ")[2].partition(b"\r\n")[0].decode()
            self.acked.write(f"{number} {decision}\n")
        if self.closed_until and time.perf_counter() < self.closed_until:
            with self.lock:
                self.sent += 1
                self.waiting.append((time.perf_counter(), self.sent - 1))

    def run(self, rate, seconds, seed):
        sys.setswitchinterval(1e-4)
        self.start = time.perf_counter()
        self.closed_until = None if rate else self.start + seconds
        due = self.start
        end = [self.start + seconds + GIVE_UP]

        def until():
            done = time.perf_counter() > self.start + seconds and self.answered >= self.sent
            return 0 if done else end[0]

        receiver = threading.Thread(target=self.receive, args=(until,))
        receiver.start()
        if rate is None:
            for number in range(self.clients):
                self.give(time.perf_counter(), number)
        else:
            draw = random.Random(seed)
            number = 0
            while (due := due + draw.expovariate(rate)) < self.start + seconds:
                if not self.open and number:
                    break  # whoever answered is gone
                wait = due - time.perf_counter()
                if wait > 0:
                    time.sleep(wait)
                self.late.append(max(0.0, time.perf_counter() - due))
                self.give(due, number)
                number += 1
        receiver.join()
        if self.acked:
            self.acked.close()
        return self.summary(seconds)

    def summary(self, seconds):
        by_status = {}
        for _, status, took in self.finished:
            by_status.setdefault(status, []).append(took)
        return {
            "sent": self.sent,
            "lost": self.lost + self.sent - self.answered,
            "seconds": seconds,
            "statuses": {str(s): len(v) for s, v in by_status.items()},
            "latency": {str(s): quantiles(v) for s, v in by_status.items()},
            "late": quantiles(self.late),
            "per_second": dict(Counter(f"{int(at)} {status}" for at, status, _ in self.finished)),
            "slow": [[round(at, 3), s, round(t, 4)] for at, s, t in self.finished if t > 0.1][:20],
        }


def quantiles(values):
    """p50, p99 and the most, in ms."""
    ordered = sorted(values)
    if not ordered:
        return {}
    pick = lambda q: round(1000 * ordered[min(len(ordered) - 1, int(q * len(ordered)))], 3)  # noqa: E731
    return {"p50": pick(0.5), "p90": pick(0.9), "p99": pick(0.99), "p999": pick(0.999), "max": pick(1.0)}


def main(path):
    plan = json.loads(Path(path).read_text())
    print(json.dumps(Load(plan).run(plan.get("rate"), plan["seconds"], plan.get("seed", 0))))


if __name__ == "__main__":
    main(sys.argv[1])
