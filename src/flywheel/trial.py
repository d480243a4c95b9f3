"""What a generation that passed the gate still went through: a person was asked, and a share of people met it first.

It is kept as tags on the generation's run, in strict JSON: the registry's aliases say who waits and who serves, these
say since when, and what came of it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from flywheel.records import Finding

ASKED, ANSWER, CANARY = "asked", "answer", "canary"


@dataclass(frozen=True)
class Answer:
    """What a person said to a generation that passed, or that nobody said anything in time."""

    approve: bool
    who: str
    when: datetime
    why: str


@dataclass(frozen=True)
class Canary:
    """A generation that serves a share of the wheel's users, what it has shown so far, and what follows from that."""

    since: datetime
    share: float
    finding: Finding | None = None
    step: Literal["promote", "refuse", "wait"] = "wait"


@dataclass(frozen=True)
class Trial:
    """How far a generation that passed has come; None for what was not reached."""

    asked: datetime | None = None
    answer: Answer | None = None
    canary: Canary | None = None


def read(tags: Mapping[str, str]) -> Trial:
    """How far a generation has come, by the tags of its run.

    >>> read({"asked": "2026-01-05T06:00:00+00:00"}).asked
    datetime.datetime(2026, 1, 5, 6, 0, tzinfo=datetime.timezone.utc)
    """
    asked, answer, canary = (tags.get(name) for name in (ASKED, ANSWER, CANARY))
    return Trial(
        None if asked is None else datetime.fromisoformat(asked),
        None if answer is None else Answer(**_dated(json.loads(answer), "when")),
        None if canary is None else _canary(json.loads(canary)),
    )


def written(value: Answer | Canary) -> str:
    """A tag's text; what is not finite becomes null."""
    return json.dumps(_plain(asdict(value)), allow_nan=False, ensure_ascii=False)


def how_to(number: int, until: datetime) -> str:
    """What a person who is asked may do, and by when."""
    command = f"flywheel approve {number} --why REASON, or with --refuse"
    return f"it waits for a person until {until:%Y-%m-%d %H:%M}Z: {command}"


def said(answer: Answer) -> str:
    """What was answered, in words."""
    word = "approved" if answer.approve else "refused"
    return f"{word} by {answer.who} on {answer.when:%Y-%m-%d %H:%M}Z: {answer.why}"


def shown(canary: Canary) -> str:
    """What a canary has shown, in words."""
    known = "no window of it has closed yet" if canary.finding is None else canary.finding.detail
    return f"{canary.share:.0%} of the wheel's users met it from {canary.since:%Y-%m-%d %H:%M}Z on: {known}"


def _canary(told: dict[str, Any]) -> Canary:
    found = told.pop("finding")
    if found is not None:
        numbers = {name: math.nan if found[name] is None else found[name] for name in ("value", "threshold")}
        found = Finding(**found | numbers)
    return Canary(**_dated(told, "since"), finding=found)


def _dated(told: dict[str, Any], name: str) -> dict[str, Any]:
    return told | {name: datetime.fromisoformat(told[name])}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value
