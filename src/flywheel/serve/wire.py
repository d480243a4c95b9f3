"""Bodies of requests as values; a body that cannot be one is refused with the place and how to write it.

Decoding is strict: types are not converted, unknown names are refused with the nearest known one, and of a key that
stands twice in one object the last counts.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from flywheel.config import Config
from flywheel.events import Candidate, Outcome, Request, Row
from flywheel.serve.refusals import Refusal, unreadable

ID_BYTES = 256
MAX_K = 1000
AHEAD = 5 * 60 * 1_000_000  # µs that an event may lie after now: clocks differ
ZONED = "write a time as 2026-01-05T10:00:00Z, with its zone"

Id = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=ID_BYTES,
        description="1 to 256 bytes; opaque",
        extra_json_schema={"pattern": r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]+$"},
    ),
]
LARGEST = 3.4028234663852886e38  # what a model's float32 can hold
Number = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
Column = bool | int | float | str | list[str] | None
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_COMPARISON = re.compile(r"[<>]=?|[=!]=")
_LIST = re.compile(rb"[ \t\n\r]*\[")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SentOutcome(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """How one item of a decision was received; without `ts` it was received now."""

    event_id: Id
    decision_id: Id
    item: Id
    value: Number
    ts: str | None = None


class Wire:
    """What the config lets a product say: its columns, how many candidates, what an outcome's value may be."""

    def __init__(self, config: Config) -> None:
        if config.serve is None:
            raise ValueError("only a workspace with [serve] is answered from")
        contract = self._contract = config.contract
        assert contract.event_id is not None  # the config holds who serves to it
        self._identity = (contract.event_id, contract.timestamp)
        self.asked = _asked(config, config.serve.max_candidates)
        self._asked = msgspec.json.Decoder(self.asked)
        self._outcome = msgspec.json.Decoder(SentOutcome)
        self._row = msgspec.json.Decoder(dict[str, Column])
        self._several = msgspec.json.Decoder(list[msgspec.Raw])
        self.flag = contract.kind == "binary" and not _COMPARISON.search(contract.label)

    def request(self, body: bytes) -> Request:
        """What `POST /v1/rank` asks for.

        Raises:
            Refusal: 400 where the body is malformed, 422 where it is not what the contract says.
        """
        try:
            sent = self._asked.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise unreadable(
                error, body, ("user", "candidates", "item", "context", "k", *self._contract.context)
            ) from None
        found = msgspec.to_builtins(sent.candidates)
        candidates = tuple(Candidate(c) if type(c) is str else Candidate(c.pop("item"), c) for c in found)
        if bad := _bad_id(sent.user, *(candidate.item for candidate in candidates)):
            position, what = bad
            raise Refusal(422, what, where=f"/candidates/{position - 1}" if position else "/user")
        return Request(sent.user, candidates, msgspec.to_builtins(sent.context), sent.k)

    def items(self, body: bytes) -> tuple[bool, list[Any]]:
        """Whether a body is a list, and its items, each to be read by `outcome` or `row`.

        Raises:
            Refusal: 400, the body is malformed.
        """
        if not _LIST.match(body):
            return False, [body]
        try:
            return True, self._several.decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise unreadable(error, body) from None

    def outcome(self, item: Any, now: int) -> Outcome:
        """One item of `POST /v1/outcomes`; `now` in microseconds since 1970 UTC.

        Raises:
            Refusal: 400 or 422.
        """
        try:
            sent = self._outcome.decode(item)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise unreadable(error, bytes(item), SentOutcome.__struct_fields__, {"ts": ZONED}) from None
        if bad := _bad_id(sent.event_id, sent.decision_id, sent.item):
            raise Refusal(422, bad[1], where="/" + SentOutcome.__struct_fields__[bad[0]])
        if self.flag and sent.value not in (0.0, 1.0):
            why = f"{self._contract.label} is 0 or 1 by the contract"
            raise Refusal(422, f"value {sent.value:g} is neither 0 nor 1", why=why, where="/value")
        ts = now if sent.ts is None else _moment(sent.ts, "ts", now)
        return Outcome(sent.event_id, sent.decision_id, sent.item, sent.value, ts)

    def row(self, item: Any, now: int) -> Row:
        """One item of `POST /v1/events`: a row under the contract's names; `now` in microseconds since 1970 UTC.

        Raises:
            Refusal: 400 or 422.
        """
        body, (named, timed) = bytes(item), self._identity
        try:
            found = self._row.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise unreadable(error, body) from None
        event_id, ts = found.get(named), found.get(timed)
        for name, value in ((named, event_id), (timed, ts)):
            if not isinstance(value, str):
                what = f"{name} is missing" if value is None else f"{name} is no text"
                raise Refusal(422, what, why="a row has its event id and its time", next=ZONED, where=f"/{name}")
        assert isinstance(event_id, str)
        assert isinstance(ts, str)
        if bad := _bad_id(event_id):
            raise Refusal(422, bad[1], where=f"/{named}")
        utc = self._contract.naive_timestamps == "utc"
        return Row(event_id, _moment(ts, timed, now, naive_is_utc=utc), body)


def columns(config: Config) -> list[tuple[str, Any, Any]]:
    """The contract's context as fields of a struct, each of which may be left out or null."""
    kinds: list[tuple[str, Any]] = [(name, Number) for name in config.contract.numeric]
    kinds += [(name, str) for name in config.contract.categorical]
    kinds += [(name, list[str]) for name in config.contract.lists]
    return [
        (f"column{i}", kind | None | UnsetType, msgspec.field(name=name, default=UNSET))
        for i, (name, kind) in enumerate(kinds)
    ]


def _asked(config: Config, most: int) -> Any:
    """The type of a request for a ranked list: candidates and context may carry the contract's columns only."""
    candidate: Any = _struct(
        "Candidate", "An item that may be shown, with the context that is its own.", [("item", Id), *columns(config)]
    )
    context: Any = _struct("Context", "What holds for every candidate of a request.", columns(config))
    fields: list[Any] = [
        ("user", Id),
        ("candidates", Annotated[list[Id | candidate], msgspec.Meta(min_length=1, max_length=most)]),
        ("context", context, msgspec.field(default_factory=context)),
        ("k", Annotated[int, msgspec.Meta(ge=1, le=MAX_K)], msgspec.field(default=10)),
    ]
    return _struct("Asked", "For whom a list is wanted, of what, in which context, and how long.", fields)


def _struct(name: str, doc: str, fields: list[Any]) -> Any:
    return msgspec.defstruct(name, fields, forbid_unknown_fields=True, namespace={"__doc__": doc})


def _bad_id(*ids: str) -> tuple[int, str] | None:
    """The position of the first id that cannot be one, and why; None if all can. 50 of them take 4 µs."""
    together = "".join(ids)
    longest = max(map(len, ids)) * (1 if together.isascii() else 4)
    if longest <= ID_BYTES and all(ids) and not _CONTROL.search(together):
        return None
    for position, text in enumerate(ids):
        if not text:
            return position, "an id is empty"
        if found := _CONTROL.search(text):
            return position, f"an id holds the control character U+{ord(found[0]):04X}"
        if len(text.encode()) > ID_BYTES:
            return position, f"an id is longer than {ID_BYTES} bytes"
    return None


def _moment(text: str, name: str, now: int, *, naive_is_utc: bool = False) -> int:
    """Microseconds since 1970 UTC."""
    where = f"/{name}"
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(422, f"{name} is no time: {text[:40]!r}", next=ZONED, where=where) from None
    if at.tzinfo is None:
        if not naive_is_utc:
            raise Refusal(422, f"{name} has no time zone: {text[:40]!r}", next=ZONED, where=where)
        at = at.replace(tzinfo=UTC)
    since = at - _EPOCH
    ts = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if ts > now + AHEAD:
        ahead = (ts - now) // 1_000_000
        raise Refusal(422, f"{name} lies {ahead:,} s in the future", why="no clock may be 5 minutes fast", where=where)
    return ts
