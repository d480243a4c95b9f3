"""The server of a workspace: what it answers from, where its answers go, and how it learns of a new champion."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from flywheel.config import Config
from flywheel.errors import ConfigError, FlywheelError, IntegrityError
from flywheel.found import PAGE
from flywheel.learn import baseline, train
from flywheel.learn.matrix import Known, Recipe
from flywheel.learn.train import Columns
from flywheel.schema import NOTHING
from flywheel.sections import Serve
from flywheel.serve import server
from flywheel.serve import snapshot as snapshots
from flywheel.serve.access import VARIABLES, Tokens, check_binding
from flywheel.serve.ranker import CANARY, HOLDBACK, WHEEL, Canary, Ranker
from flywheel.serve.serving import Clock, Serving, Told
from flywheel.serve.snapshot import Snapshot
from flywheel.sources.group_commit import GroupCommit
from flywheel.sources.inbox import Inbox
from flywheel.workspace import Workspace

TOLERANCE = 1e-6  # by which a golden row may be scored otherwise than when it was published
log = logging.getLogger("flywheel.serve")


def policy(config: Config) -> Serve:
    """How people are answered.

    Raises:
        ConfigError: the workspace does not serve.
    """
    if config.serve is None:
        raise ConfigError(
            "this workspace answers nobody", why="flywheel.toml has no [serve]", next="add [serve] to flywheel.toml"
        )
    return config.serve


def inbox(ws: Workspace) -> Inbox:
    """Where the workspace's answers go."""
    return Inbox.open(ws.config.inbox_url, ws.root)


def ranker_of(snapshot: Snapshot, how: Serve, canary: Canary | None = None) -> Ranker:
    """A ranker that was seen to score the golden rows as the model did when it was published; beside it a canary.

    Raises:
        IntegrityError: it does not.
    """
    kind = snapshot.config.contract.kind
    score = None
    if snapshot.model is not None:
        score = train.scorer(snapshot.model, Columns(snapshot.names, snapshot.types, snapshot.sizes))
        off = float(np.abs(score(snapshot.golden) - snapshot.golden_scores).max(initial=0))
        if not off <= TOLERANCE:
            raise IntegrityError(
                f"generation {snapshot.generation} scores golden rows otherwise than it did, by {off:.1e}",
                why="this machine's XGBoost reads the model differently",
                next="flywheel rollback",
            )
    return Ranker(snapshot, score, lambda matrix: baseline.scores(matrix, snapshot.names, kind=kind), how, canary)


def canary_of(snapshot: Snapshot, how: Serve, share: float) -> Canary:
    """Who serves a share of people beside the champion.

    Raises:
        IntegrityError: as `ranker_of` does.
    """
    return Canary(ranker_of(snapshot, how), share)


def told(ranker: Ranker, now: int) -> Told:
    """What people may ask of a ranker; `now` in microseconds since 1970 UTC."""
    snapshot, holdback, tried = ranker.snapshot, ranker.policy.holdback, ranker.canary
    grid = snapshot.config.windows.grid
    known = snapshot.state != NOTHING
    closed = round(grid.closes_at(snapshot.state).timestamp()) * 1_000_000 if known else None
    share = tried.share if tried else 0.0
    shares = {WHEEL: (1 - holdback) * (1 - share), HOLDBACK: holdback} | (
        {CANARY: (1 - holdback) * share} if tried else {}
    )
    state = grid.name(snapshot.state) if known else None
    number = tried.ranker.snapshot.generation if tried else 0
    return Told(snapshot.generation, shares, state, closed, snapshot.recipe, loaded=now, canary=number)


@contextmanager
def following(ws: Workspace, clock: Clock) -> Iterator[Serving]:
    """What the door answers from, kept at what the registry says by a process beside this one.

    It begins with the newest snapshot there is, without one with the baseline, to which nothing is known.
    """
    how = policy(ws.config)
    snapshot = _newest(ws) or nothing_known(ws)
    ranker = ranker_of(snapshot, how)
    serving = Serving(ranker, told(ranker, clock()), clock=clock)

    def heard(line: dict[str, Any]) -> None:
        if "failed" in line:
            serving.kept()
            log.warning("what serves stays, for the registry could not tell: %s", line["failed"])
        elif "snapshot" in line:
            _take_up(serving, line, how)
        else:
            serving.unchanged()

    publisher = Publisher(ws.root, heard)
    try:
        yield serving
    finally:
        publisher.end()


def serve(ws: Workspace, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Answer people until SIGTERM or Ctrl-C.

    Raises:
        ConfigError: the workspace does not serve, the port is taken, or tokens are missing.
        SourceError: the inbox cannot be opened.
    """
    tokens = Tokens(**{scope: os.environ.get(name, "") for scope, name in VARIABLES.items()})
    check_binding(host, tokens)
    where = inbox(ws)
    with following(ws, lambda: time.time_ns() // 1000) as serving:
        server.serve(
            ws.config,
            serving,
            GroupCommit(where),
            host=host,
            port=port,
            tokens=tokens,
            ready=ready,
            report=lambda: page(ws),
        )
    where.close()


def page(ws: Workspace) -> bytes:
    """The newest report of the workspace; empty before there is one."""
    try:
        return (ws.cache / PAGE).read_bytes()
    except FileNotFoundError:
        return b""


def _newest(ws: Workspace) -> Snapshot | None:
    """The newest snapshot that can be read, to begin with: the publisher soon says what serves."""
    folders = (ws.cache / "serving").glob("[!.]*")
    for folder in sorted(folders, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            return snapshots.read(folder)
        except FlywheelError as error:
            log.warning("%s is passed over: %s", folder.name, error.what)
    return None


def nothing_known(ws: Workspace) -> Snapshot:
    """The baseline before anything is known."""
    return without_model(ws.recipe, None)


def without_model(recipe: Recipe, known: Known | None) -> Snapshot:
    """What is known, under a recipe, for the baseline or whoever brings a model of their own."""
    return Snapshot(
        generation=0,
        recipe=recipe.fingerprint,
        config=recipe.spec.config,
        state=known.window if known else NOTHING,
        counters=known.counters if known else {},
        vocabularies=known.vocabularies if known else {},
        names=recipe.names,
        types=recipe.types,
        sizes={},
        model=None,
        custom=recipe.custom.text,
        golden=np.empty((0, len(recipe.names)), np.float32),
        golden_scores=np.empty(0),
    )


def _take_up(serving: Serving, line: dict[str, Any], how: Serve) -> None:
    """Serve by a new snapshot, if it can be read and scores as it did; else the last good one serves on."""
    folder = Path(line["snapshot"])
    try:
        ranker = ranker_of(snapshots.read(folder), how, _canary(line, how))
        serving.swap(ranker, told(ranker, serving.clock()))
    except FlywheelError as error:
        serving.kept()
        log.error("generation in %s is not served: %s", folder.name, error)


def _canary(line: dict[str, Any], how: Serve) -> Canary | None:
    """The canary that the publisher tells of; where it cannot serve, the champion serves everybody."""
    try:
        if "canary" in line:
            return canary_of(snapshots.read(Path(line["canary"])), how, line["share"])
        why = line.get("no_canary")
    except FlywheelError as error:
        why = str(error)
    if why:
        log.error("the canary does not serve, and the champion serves everybody: %s", why)
    return None


class Publisher:
    """The process that watches the registry, and the thread that listens to it and swaps rankers."""

    def __init__(self, root: Path, heard: Callable[[dict[str, Any]], None]) -> None:
        self._root, self._heard, self._ended = root, heard, False
        self._child = self._begin()
        self._thread = threading.Thread(target=self._listen, name="publisher", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the process; nothing is heard any more."""
        self._ended = True
        self._child.terminate()
        self._thread.join(5)

    def _begin(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "flows.publishing", str(self._root)]
        return subprocess.Popen(  # an interrupt is for the server, which ends it once it has drained
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, start_new_session=True
        )

    def _listen(self) -> None:
        while not self._ended:
            assert self._child.stdout is not None
            for line in self._child.stdout:
                self._heard(json.loads(line))
            code = self._child.wait()
            time.sleep(1)
            if not self._ended:  # it was killed: what serves goes on serving, and a new one looks on
                log.warning("the publisher ended with %s and is started again", code)
                self._child = self._begin()
