"""Windows made by workers: apart from the dataset, in any order, and to the same files as one after the other.

What a window comes to hangs on those before it in one way: an event whose id one of them holds is a duplicate. So
each is made at first as if they held none of its ids, but for what closed windows hold. Then the ids are compared,
and a window that brings what an earlier one was found to hold is made again, knowing it, until there is none left to
make. Whatever the first window is told is right, so what the second is told after one comparison is right as well,
and so on. Ids are rarely sent again for another window, so mostly nothing is made twice.

    .flywheel/closing/<token>/   attributes.<number>.parquet   <address>.json: ids that earlier windows hold
                                 <window>-<address of what it was told>/   brought, held: hashes of ids
                                                                           events/, quarantine/: as in `data/`

A path says what its file was made from, so whoever makes it twice, or late, changes nothing.
"""

import hashlib
import json
import secrets
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows import judging
from flows.judging import Offered
from flywheel import content, exchange, parquet
from flywheel.data import collect, dataset, identity, quarantine, validate
from flywheel.data.collect import Counts, Known
from flywheel.data.identity import Ids
from flywheel.errors import ConfigError, FlywheelError
from flywheel.fingerprint import atomic_write
from flywheel.integrations import gx_suites
from flywheel.segments import Keys
from flywheel.sources.spool import Spool
from flywheel.workspace import Workspace

if TYPE_CHECKING:
    from flywheel.learn.block import Spread

_JUDGING = threading.Lock()  # neither the index of ids nor Great Expectations was made for threads


@dataclass(frozen=True)
class Part:
    """What a worker needs to know of a closing: the workspace, where windows are made, and by which code."""

    folder: Path
    ws: Workspace = field(compare=False)
    code: str = field(compare=False)

    @classmethod
    def begin(cls, ws: Workspace, tables: Sequence[pa.Table]) -> "Part":
        """Make the place in which windows are made, with the attributes' tables, which are read once for all."""
        end(ws)
        folder = _root(ws) / secrets.token_hex(4)
        folder.mkdir(parents=True)
        for number, table in enumerate(tables):
            parquet.write(folder / f"attributes.{number}.parquet", table)
        exchange.send(folder.iterdir())
        dataset.send(ws.data)
        for shared in (ws.expectations, ws.cache / "ids"):
            exchange.send_all(shared)
        return cls(folder, Workspace(ws.root, ws.config.told), code())


def end(ws: Workspace) -> None:
    """Remove all that was made apart from the dataset."""
    shutil.rmtree(_root(ws), ignore_errors=True)  # a worker that was given up may still write there
    for sent in (_root(ws), ws.inbox):
        exchange.drop(sent)


def _root(ws: Workspace) -> Path:
    return ws.cache / "closing"


@cache
def code() -> str:
    """A short hash of what a window's bytes are made by."""
    modules = (judging, collect, quarantine, content, validate, gx_suites, dataset, parquet)
    made_by = [Path(str(module.__file__)).read_bytes() for module in modules]
    return hashlib.sha256(b"\0".join([*made_by, pa.__version__.encode()])).hexdigest()[:12]


@dataclass(frozen=True)
class Asked:
    """A window to be made, and the address of the ids that those before it which are made with it hold."""

    offered: Offered
    told: str = ""


@dataclass(frozen=True)
class Made:
    """A window as a worker made it: where its files are, their hashes, and what its ledger line says of it."""

    folder: Path
    sha256: tuple[str, str | None]
    counts: Counts
    rules: str

    @property
    def ids(self) -> Keys:
        """The hashes of the ids that it holds."""
        return _kept(self.folder / "held")


def make(spread: "Spread", part: Part, offered: Sequence[Offered]) -> list[Made | Exception]:
    """Make windows that are to be closed one after the other, each by whomever `spread` has it done.

    Where one would not close there is the error in its place, to be raised once those before it are closed.
    """
    spool = Spool(part.ws.inbox, part.ws.config.windows.grid)
    exchange.send((path for one in offered for name in one.shards for path in spool.files(name)), anew=True)
    asked = [Asked(one) for one in offered]
    made: dict[Asked, Made | Exception] = {}
    while new := [one for one in asked if one not in made]:
        made |= dict(zip(new, spread(partial(_close, part), new), strict=True))
        (told,) = spread(partial(_compare, part), [asked])
        asked = [Asked(one, address) for one, address in zip(offered, told, strict=True)]
    for one in asked:
        exchange.bring(exchange.names(_folder(part, one)))
    return [made[one] for one in asked]


def _close(part: Part, asked: Asked) -> Made | Exception:
    try:
        return _made(part, asked)
    except (FlywheelError, OSError, pa.ArrowException) as error:
        return error


def _made(part: Part, asked: Asked) -> Made:
    if part.code != code():
        why = f"it makes windows by code {code()}, and {part.code} is asked for"
        raise ConfigError("a worker runs another version of Flywheel", why=why, next="install the same on all")
    ws, window, folder = part.ws, asked.offered.window, _folder(part, asked)
    spool, offered = Spool(ws.inbox, ws.config.windows.grid), asked.offered
    for shard in (ws.inbox / "shards" / name for name in offered.shards):
        exchange.bring(exchange.names(shard.parent, f"{shard.name}."), anew=True)
    events = spool.read_events(offered.events, ws.config)
    rejected = spool.read_rejected(offered.rejected)
    folder.mkdir(parents=True, exist_ok=True)
    _keep(folder / "brought", identity.hashes(events["event_id"]))
    with _JUDGING:
        ids, tables = _shared(part)
        judged = judging.judge(
            ws, window, events=events, rejected=rejected, known=_known(part, asked, ids), attributes=tables
        )
    sha256 = dataset.write_window(folder, _name(part, asked), judged.good, judged.quarantined)
    exchange.send((path for path in folder.rglob("*.parquet")), anew=True)
    _keep(folder / "held", identity.hashes(judged.good["event_id"]))
    return Made(folder, sha256, judged.counts, judging.rules(ws))


@lru_cache(maxsize=1)
def _shared(part: Part) -> tuple[Ids, list[pa.Table]]:
    """What is read once for all windows that a process makes."""
    ws = part.ws
    exchange.bring([dataset.ledger_path(ws.data)], anew=True)
    exchange.bring(exchange.names(part.folder, "attributes."))
    for shared in (ws.expectations, ws.cache / "ids"):
        exchange.bring_all(shared)
    tables = [parquet.read(part.folder / f"attributes.{number}.parquet") for number in range(len(ws.config.attributes))]
    return judging.ids(ws, ws.cache / "ids", ws.ledger()), tables


def _known(part: Part, asked: Asked, ids: Ids) -> Known:
    """Whether closed windows hold an id, or those before this one do as far as was told."""
    if not asked.told:
        return ids.known
    note = part.folder / f"{asked.told}.json"
    exchange.bring([note])
    others = pa.array(json.loads(note.read_text(encoding="utf-8")), pa.string())
    return lambda column: pc.or_(ids.known(column), pc.is_in(column.combine_chunks(), value_set=others))


def _compare(part: Part, asked: Sequence[Asked]) -> list[str]:
    """The address of what each window is to be told, after what all were found to hold."""

    def ids(place: int) -> pa.ChunkedArray:
        folder = _folder(part, asked[place])
        if not len(_kept(folder / "held")):
            return pa.chunked_array([], pa.string())
        return dataset.read_window(folder, _name(part, asked[place]), ["event_id"])["event_id"]

    found = identity.repeated([_kept(_folder(part, one) / "brought") for one in asked], ids)
    return [_note(part, told) for told in found]


def _note(part: Part, ids: list[str]) -> str:
    if not ids:
        return ""
    text = json.dumps(ids)
    address = hashlib.sha256(text.encode()).hexdigest()[:16]
    note = part.folder / f"{address}.json"
    atomic_write(note, lambda path: path.write_text(text, encoding="utf-8"))
    exchange.send([note], anew=True)
    return address


def _name(part: Part, asked: Asked) -> str:
    return part.ws.config.windows.grid.name(asked.offered.window)


def _folder(part: Part, asked: Asked) -> Path:
    return part.folder / f"{_name(part, asked)}-{asked.told or 'alone'}"


def _keep(path: Path, hashes: Keys) -> None:
    atomic_write(path, hashes.tofile)
    exchange.send([path], anew=True)


def _kept(path: Path) -> Keys:
    """The hashes there; none of a window that would not close."""
    exchange.bring([path])
    return np.fromfile(path, np.uint64) if path.exists() else np.empty(0, np.uint64)
