"""What is acknowledged is on disk, once, whoever dies, whatever fills up, and however many write at once."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from flywheel.errors import FlywheelError
from flywheel.events import Outcome
from flywheel.sources.group_commit import GroupCommit
from flywheel.sources.inbox import Inbox, Written
from flywheel.sources.inbox_database import FILE, InboxUnavailable


def outcome(name: str) -> Outcome:
    return Outcome(name, "d", "i", 1.0, 20)


@pytest.fixture
def inbox(inbox_url: str | None, tmp_path: Path) -> Iterator[Inbox]:
    opened = Inbox.open(inbox_url, tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Inbox]:
    opened = Inbox.open("sqlite:///inbox/inbox.db?timeout=0.2", tmp_path)
    yield opened
    opened.close()


BEGIN = """
import os, random, resource, signal, sys, threading, time
from pathlib import Path
from flywheel.events import Outcome
from flywheel.sources.group_commit import GroupCommit
from flywheel.sources.inbox import Inbox
from flywheel.sources.inbox_database import InboxUnavailable

root, url = Path(sys.argv[1]), sys.argv[2] or None
outcome = lambda name: Outcome(name, "d", "i", 1.0, 20)
"""


def program(text: str, root: Path, url: str | None, *arguments: str, **env: str) -> "subprocess.Popen[str]":
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + text, str(root), url or "", *arguments],
        env={**os.environ, "PYTHONPATH": path, **env},
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: "subprocess.Popen[str]") -> list[str]:
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out.splitlines()


KILLED = """
acknowledged = os.open(root / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def write(group, run, number):
    for n in range(10**6):
        name = f"{run}-{number}-{n}"
        assert group.write([], [outcome(name), outcome(f"{name}+")]).outcomes == ["accepted"] * 2
        os.write(acknowledged, f"{name}\\n{name}+\\n".encode())

for run in range(int(sys.argv[3])):
    child = os.fork()
    if child == 0:
        group = GroupCommit(Inbox.open(url, root))
        for number in range(4):
            threading.Thread(target=write, args=(group, run, number), daemon=True).start()
        time.sleep(60)
    size = os.fstat(acknowledged).st_size
    while os.fstat(acknowledged).st_size == size:
        time.sleep(0.001)
    time.sleep(random.random() / 20)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_kill_9_loses_no_acknowledged_event_and_doubles_none(inbox_url: str | None, tmp_path: Path) -> None:
    said(program(KILLED, tmp_path, inbox_url, "20" if inbox_url is None else "5"))
    acknowledged = (tmp_path / "acknowledged").read_text().split()
    inbox = Inbox.open(inbox_url, tmp_path)
    with inbox.engine.connect() as connection:
        kept = list(connection.execute(sa.text("SELECT id FROM outcomes")).scalars())
    assert len(set(acknowledged)) == len(acknowledged) > 40
    assert len(set(kept)) == len(kept)
    assert set(acknowledged) <= set(kept)
    assert {name + "+" for name in kept if name[-1] != "+"} == {name for name in kept if name[-1] == "+"}  # never half
    assert inbox.write([], [outcome(name) for name in acknowledged]).outcomes == ["duplicate"] * len(acknowledged)
    inbox.close()


AT_ONCE = """
names = [f"e{n}" for n in range(300)]
random.Random(sys.argv[4]).shuffle(names)
time.sleep(max(0, float(sys.argv[3]) - time.time()))
inbox, accepted = Inbox.open(url, root), 0
for start in range(0, 300, 20):
    accepted += inbox.write([], [outcome(name) for name in names[start : start + 20]]).outcomes.count("accepted")
print(accepted)
"""


def test_processes_that_begin_at_once_and_send_the_same_keep_it_once(inbox_url: str | None, tmp_path: Path) -> None:
    at = str(time.time() + 1.5)
    count = 8 if inbox_url is None else 3
    running = [program(AT_ONCE, tmp_path, inbox_url, at, str(number)) for number in range(count)]
    assert sum(int(line) for process in running for line in said(process)) == 300
    inbox = Inbox.open(inbox_url, tmp_path)
    arrived = inbox.arrived()["outcomes"]
    assert (arrived.kept, arrived.duplicate, arrived.conflict) == (300, (count - 1) * 300, 0)
    inbox.close()


FULL = """
inbox = Inbox.open(url, root)
kept = [inbox.write([], [outcome("before")]).outcomes == ["accepted"]]
limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, ((root / "inbox/inbox.db-wal").stat().st_size + 20_000, limit))
refused = 0
for n in range(40):
    try:
        inbox.write([], [outcome(f"{n}-{k}") for k in range(100)])
        print(n)
    except InboxUnavailable as error:
        refused += 1
assert refused > 30, refused
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
inbox.write([], [outcome("after")])
print("after")
"""


def test_on_a_full_disk_nothing_is_acknowledged_and_with_room_it_goes_on(tmp_path: Path) -> None:
    acknowledged = said(program(FULL, tmp_path, None))
    assert acknowledged[-1] == "after"
    inbox = Inbox.open(None, tmp_path)
    assert inbox.arrived()["outcomes"].kept == 2 + 100 * (len(acknowledged) - 1)
    inbox.close()


NO_SYNC = """
#include <errno.h>
#include <unistd.h>
int fsync(int file) { if (access(getenv("BROKEN"), F_OK) == 0) { errno = EIO; return -1; } return 0; }
int fdatasync(int file) { return fsync(file); }
"""
BROKEN = """
broken = Path(os.environ["BROKEN"])
inbox = Inbox.open(url, root)
for n in range(9):
    (broken.touch if n % 3 == 1 else broken.unlink)(**({} if n % 3 == 1 else {"missing_ok": True}))
    try:
        print(n, *inbox.write([], [outcome(f"{n}-{k}") for k in range(50)] + [outcome("1-1")]).outcomes[-1:])
    except InboxUnavailable as error:
        print(n, error.why)
"""


def test_an_event_whose_sync_failed_is_not_acknowledged(tmp_path: Path) -> None:
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler to break fsync with")
    (tmp_path / "no_sync.c").write_text("#include <stdlib.h>\n" + NO_SYNC)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "no_sync.so", "no_sync.c"], cwd=tmp_path, check=True)
    env = {"LD_PRELOAD": str(tmp_path / "no_sync.so"), "BROKEN": str(tmp_path / "broken")}
    lines = said(program(BROKEN, tmp_path, None, **env))
    assert lines == [
        f"{n} disk I/O error" if n % 3 == 1 else f"{n} {'duplicate' if n else 'accepted'}" for n in range(9)
    ]
    inbox = Inbox.open(None, tmp_path)
    assert inbox.arrived()["outcomes"].kept == 6 * 50 + 1
    inbox.close()


def test_a_database_that_is_locked_or_gone_is_not_available(file: Inbox, tmp_path: Path) -> None:
    other = sa.create_engine(file.engine.url)
    with other.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(InboxUnavailable, match="locked"):
            file.write([], [outcome("a")])
    other.dispose()
    assert file.write([], [outcome("a")]).outcomes == ["accepted"]
    (tmp_path / FILE).rename(tmp_path / "elsewhere.db")
    with pytest.raises(InboxUnavailable, match="was moved or deleted"):
        file.write([], [outcome("b")])
    assert not (tmp_path / FILE).exists()
    (tmp_path / "elsewhere.db").rename(tmp_path / FILE)
    assert file.write([], [outcome("b")]).outcomes == ["accepted"]


def test_what_an_earlier_process_left_in_the_log_is_synced_before_more_is_written(file: Inbox, tmp_path: Path) -> None:
    file.write([], [outcome("a")])
    Inbox.open(None, tmp_path).close()
    shutil.copy(tmp_path / FILE, tmp_path / "alone.db")
    alone = Inbox.open("sqlite:///alone.db", tmp_path)
    assert alone.write([], [outcome("a")]).outcomes == ["duplicate"]
    alone.close()


def test_a_lost_connection_is_replaced(fresh_schema: Callable[[], str], tmp_path: Path) -> None:
    inbox = Inbox.open(fresh_schema(), tmp_path)
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = 'postgres'"
    )
    for n in range(3):
        assert inbox.write([], [outcome(f"e{n}")]).outcomes == ["accepted"]
        other = sa.create_engine(inbox.engine.url)
        with other.connect() as connection:
            connection.exec_driver_sql(end)
        other.dispose()
    assert inbox.arrived()["outcomes"].kept == 3
    inbox.close()


class Held:
    """Holds a database's writers up until it is told to let them go on."""

    def __init__(self, inbox: Inbox) -> None:
        self._engine = sa.create_engine(inbox.engine.url)
        self._connection = self._engine.connect()
        self._connection.exec_driver_sql("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._connection.rollback()
        self._connection.close()
        self._engine.dispose()


def test_a_full_line_is_refused_at_once_and_close_writes_what_waits(tmp_path: Path) -> None:
    inbox = Inbox.open(None, tmp_path)
    held = Held(inbox)
    group = GroupCommit(inbox, limit=10)
    told: list[Written | FlywheelError] = []
    began = time.monotonic()
    taken = [group.submit([], [outcome(f"{k}-{n}") for n in range(3)], [], told.append) for k in range(5)]
    assert taken == [True, True, True, False, False]
    assert group.waiting == 9
    with pytest.raises(InboxUnavailable, match="no room"):
        group.write([], [outcome("x"), outcome("y")])
    assert group.submit([], [outcome("z")], [], told.append)
    assert time.monotonic() - began < 1
    closing = threading.Thread(target=group.close)
    closing.start()
    held.release()
    closing.join()
    assert [len(result.outcomes) for result in told if isinstance(result, Written)] == [3, 3, 3, 1]
    assert (group.waiting, inbox.arrived()["outcomes"].kept) == (0, 10)
    assert not group.submit([], [outcome("late")], [], told.append)
    inbox.close()


def test_a_group_that_fails_fails_everyone_in_it(file: Inbox) -> None:
    held = Held(file)
    group = GroupCommit(file)
    told: list[Written | FlywheelError] = []
    for n in range(5):
        assert group.submit([], [outcome(f"e{n}")], [], told.append)
    while len(told) < 5:
        time.sleep(0.01)
    held.release()
    assert all(isinstance(result, InboxUnavailable) for result in told)
    assert group.write([], [outcome("e0")]).outcomes == ["accepted"]
    group.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_whoever_waits_is_told_even_if_a_callback_fails(file: Inbox) -> None:
    held = Held(file)
    group = GroupCommit(file)
    told: list[Written | FlywheelError] = []

    def fail(result: Written | FlywheelError) -> None:
        raise RuntimeError("the loop is closed")

    group.submit([], [outcome("first")], [], fail)
    for n in range(3):
        group.submit([], [outcome(f"e{n}")], [], told.append)
    held.release()
    group.close()
    assert len(told) == 3
    assert not group.submit([], [], [], told.append)
