"""What the door says when it will not: a status, and the same what, why, next and where as every error here."""

import difflib
import re
from collections.abc import Collection, Mapping

import msgspec

from flywheel.errors import FlywheelError

_AT = re.compile(r"(.*?)(?: - at `\$(.*)`)?", re.DOTALL)
_STEP = re.compile(r"\[(\d+|\.\.\.)\]|\.([^.\[]+)")
_MALFORMED = re.compile(r"JSON is malformed: (.*) \(byte (\d+)\)", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
NESTING = 64  # nothing that the door reads is nested deeper than five levels


class Why(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong, why, what to do about it, and where it stands; a part that says nothing is left out."""

    what: str
    why: str = ""
    next: str = ""
    where: str = ""


class Refused(msgspec.Struct, frozen=True):
    """The body of every answer that is not a 2xx."""

    error: Why


class Refusal(FlywheelError):
    """A request that is not answered as asked; `where` is a JSON pointer into its body, or the byte it breaks at."""

    def __init__(
        self,
        status: int,
        what: str,
        *,
        why: str = "",
        next: str = "",
        where: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(what, why=why, next=next, where=where)
        self.status, self.headers = status, dict(headers or {})

    def told(self) -> Why:
        """The refusal as it is sent."""
        return Why(self.what, self.why, self.next, self.where)


def unreadable(error: Exception, body: bytes, known: Collection[str] = (), hints: Mapping[str, str] = {}) -> Refusal:
    """Why msgspec could not decode a body: 400 where it is no JSON, and says the byte; else 422.

    A body that is wrong before it is malformed is malformed all the same.

    Args:
        known: the names among which an unknown one finds its nearest.
        hints: how to write a value, by the last name on the way to it.
    """
    broken = _broken(body, error)
    if broken is not None:
        return broken
    match = _AT.fullmatch(str(error))
    assert match is not None
    said, path = match[1], match[2] or ""
    where = pointer(path)
    if said == "Number out of range":
        return Refusal(400, "a number is out of range", where=where, why="it is beyond what 64 bits can say")
    unknown = _UNKNOWN.fullmatch(said)
    if unknown is None:
        return Refusal(422, said[:1].lower() + said[1:], where=where, next=hints.get(where.rpartition("/")[2], ""))
    near = difflib.get_close_matches(unknown[1], known, n=1, cutoff=0)
    why = f"the nearest known name is {near[0]}" if near else "no names are known here"
    return Refusal(422, f"unknown name {unknown[1][:80]!r}", where=where, why=why, next="GET /openapi.json lists them")


def _broken(body: bytes, error: Exception) -> Refusal | None:
    """What makes a body no JSON text, if anything does; a typed decoder may have stopped before it came to that."""
    fix = "send one JSON text in UTF-8, without a byte order mark"
    try:
        body.decode("utf-8")
        if type(error) is msgspec.DecodeError:
            raise error
        msgspec.json.decode(body, type=msgspec.Raw)
    except UnicodeDecodeError as bad:
        return Refusal(400, "the body is not UTF-8", why=bad.reason, where=f"byte {bad.start}", next=fix)
    except RecursionError:
        return Refusal(400, "the body is nested too deeply", where=f"byte {_depth(body)}", next="send flat values")
    except msgspec.DecodeError as bad:
        match = _MALFORMED.fullmatch(str(bad))
        why, at = (match[1], match[2]) if match else ("it ends too early", str(len(body)))
        return Refusal(400, "the body is not JSON", why=why, where=f"byte {at}", next=fix)
    return None


def _depth(body: bytes) -> int:
    """The byte at which brackets first stand deeper than NESTING."""
    depth = 0
    for match in _BRACKETS.finditer(body):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(match[0], 0)
        if depth > NESTING:
            return match.start()
    return len(body)


def pointer(path: str) -> str:
    """msgspec's way to a value as a JSON pointer.

    >>> pointer(".candidates[3].hour")
    '/candidates/3/hour'
    """
    return "".join(f"/{(index or name).replace('~', '~0').replace('/', '~1')}" for index, name in _STEP.findall(path))
