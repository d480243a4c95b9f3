"""Which column plays which role, by its name and by what is in it; refuses where it cannot tell."""

import re
from collections.abc import Callable
from typing import Literal, NamedTuple, TypedDict

import numpy as np

from flywheel.errors import ConfigError
from flywheel.infer import names
from flywheel.infer.columns import Column
from flywheel.infer.label import Label, find_label
from flywheel.infer.names import Columns, called, existing, is_time, listed, plain, several

YOU = "you said so"
NAMED: dict[str, tuple[str, ...]] = {"user": names.USER, "item": names.ITEM}
OPTIONAL: dict[str, tuple[tuple[str, ...], Callable[[Column], bool], str]] = {
    "event_id": (names.EVENT_ID, lambda c: c.is_unique, "called so, and unique in the sample"),
    "request": (
        names.REQUEST,
        lambda c: 1 < c.distinct < 0.8 * len(c.filled),
        "called so, with several rows each",
    ),
    "position": (
        names.POSITION,
        lambda c: c.is_whole and bool(c.numbers.dropna().between(0, 1000).all()),
        "called so, and small whole numbers",
    ),
    "propensity": (
        names.PROPENSITY,
        lambda c: c.is_numeric and bool(c.numbers.dropna().between(np.nextafter(0, 1), 1).all()),
        "called so, and between 0 and 1",
    ),
}


class Given(TypedDict, total=False):
    """What the caller knows; each wins over what would be inferred."""

    timestamp: str | None
    label: str | None
    kind: Literal["binary", "number"] | None
    user: str | None
    item: str | None
    request: str | None
    event_id: str | None
    label_time: str | None
    position: str | None
    propensity: str | None
    outcomes: tuple[str, ...]
    table: str | None
    query: str | None


class Role(NamedTuple):
    """What one column was taken for, of which type, and why."""

    column: str
    role: str
    type: str
    why: str


Found = dict[str, tuple[Column, str]]  # role of the contract → the column, and why


def find_roles(columns: Columns, given: Given) -> tuple[Found, Label]:
    """Every role that a column plays, and the label.

    Raises:
        ConfigError: it cannot tell, or a given column does not exist or cannot play its role.
    """
    wanted = {role: str(name) for role, name in given.items() if name and role in (*NAMED, *OPTIONAL)}
    found: Found = {"timestamp": find_timestamp(columns, given.get("timestamp"), given.get("label_time"))}
    time = find_label_time(columns, given.get("label_time"), found["timestamp"][0])
    found |= {"label_time": time} if time else {}
    reserved = {*wanted.values(), *given.get("outcomes", ())}

    def free() -> list[Column]:
        taken = reserved | {column.name for column, _ in found.values()}
        return [column for column in columns.values() if column.name not in taken and not column.filled.empty]

    label = find_label(columns, given.get("label"), kind=given.get("kind"), free=free())
    found["label"] = (label.column, label.why)
    for role in (*NAMED, *OPTIONAL):
        flag = role.replace("_", "-")
        seen = (existing(columns, wanted[role], flag), YOU) if role in wanted else _guess(free(), role)
        found |= {role: seen} if seen else {}
    _once_each(found)
    return found, label


def find_timestamp(columns: Columns, given: str | None, label_time: str | None = None) -> tuple[Column, str]:
    """When it happened.

    Raises:
        ConfigError: no column holds times, several could be it, or the one given does not parse.
    """
    if given is not None:
        return _times(existing(columns, given, "timestamp"), "timestamp"), YOU
    times = [c for c in columns.values() if is_time(c) and c.name != label_time]
    times = [c for c in times if not re.search(names.LABEL_TIME, plain(c.name))] or times
    named = called(times, names.TIMESTAMP)
    chosen = named or times
    if len(chosen) == 1:
        return chosen[0], "times, and called so" if named else "the only column of times"
    if chosen:
        raise several(chosen, "timestamp", "each of them holds times")
    for column in called(columns.values(), names.TIMESTAMP):
        _times(column, "timestamp")
    advice = "--timestamp COLUMN, with times such as 2014-12-02T03:00:00Z"
    raise ConfigError("no column can be the timestamp", why=f"none of {listed(columns)} holds times", next=advice)


def find_label_time(columns: Columns, given: str | None, timestamp: Column) -> tuple[Column, str] | None:
    """When the label became known: a second column of times, called so, never before the timestamp.

    Raises:
        ConfigError: the one given holds no times, or several could be it.
    """
    if given is not None:
        return _times(existing(columns, given, "label-time"), "label-time"), YOU
    others = (c for c in columns.values() if is_time(c) and c.name != timestamp.name)
    named = (c for c in others if re.search(names.LABEL_TIME, plain(c.name)))
    chosen = [c for c in named if not (c.times < timestamp.times).any()]
    if len(chosen) > 1:
        raise several(chosen, "label-time", f"each of them holds times that are never before {timestamp.name}")
    return (chosen[0], f"times, called so, and never before {timestamp.name}") if chosen else None


def _times(column: Column, flag: str) -> Column:
    if column.holds_times:
        return column
    advice = f"write times as 2014-12-02T03:00:00Z, or name another column with --{flag}"
    what = f"column {column.name} cannot be the {flag.replace('-', ' ')}"
    raise ConfigError(what, where=f"column {column.name}", why=column.time_fault, next=advice)


def _guess(free: list[Column], role: str) -> tuple[Column, str] | None:
    if role in NAMED:
        chosen = called((c for c in free if not is_time(c)), NAMED[role])
        if len(chosen) > 1:
            raise several(chosen, role, f"each of them is called as columns of {role}s are")
        return (chosen[0], f"called {chosen[0].name}") if chosen else None
    patterns, fits, why = OPTIONAL[role]
    fitting = called((c for c in free if called([c], patterns) and fits(c)), patterns)
    return (fitting[0], why) if fitting else None


def _once_each(found: Found) -> None:
    roles: dict[str, str] = {}
    for role, (column, _) in found.items():
        if column.name in roles:
            flags = f"--{roles[column.name]} and --{role}".replace("_", "-")
            raise ConfigError(f"column {column.name} cannot play two roles", where=flags, why="each needs its own")
        roles[column.name] = role
