"""The door as ASGI: which route, whether it may be asked, the body within its limits, and the answer as bytes.

One dictionary of routes and no middleware: a request pays for nothing that it does not use.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flywheel.errors import FlywheelError
from flywheel.serve.access import Access, Scope
from flywheel.serve.answers import Answer, refused
from flywheel.serve.intake import busy
from flywheel.serve.numbers import Numbers
from flywheel.serve.refusals import Refusal

log = logging.getLogger(__name__)
HELD_BYTES = 2**26
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Route:
    """One thing to ask for, what answers it, whose token it takes, and how many bytes its body may have (0: none)."""

    method: str
    path: str
    answer: Callable[[bytes], Awaitable[Answer]]
    scope: Scope = "open"
    limit: int = 0


class Door:
    """An ASGI application."""

    def __init__(self, routes: Iterable[Route], access: Access, numbers: Numbers) -> None:
        self._access, self._numbers = access, numbers
        self._held = 0  # bytes of bodies that are still coming
        self._routes: dict[str, dict[str, Route]] = {}
        for route in routes:
            self._routes.setdefault(route.path, {})[route.method] = route

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request; whoever hangs up first is not answered."""
        began, status = time.perf_counter(), 500
        try:
            answer = await self._answer(scope, receive)
            if answer is None:
                return
            status = answer.status
            headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": answer.body})
        finally:
            path = scope["path"] if scope["path"] in self._routes else "other"
            self._numbers.answered(path, status, time.perf_counter() - began)

    async def _answer(self, scope: Message, receive: Receive) -> Answer | None:
        try:
            route, headers = self._route(scope), dict(scope["headers"])
            self._access.check(headers, route.scope)
            if not route.limit:
                return await route.answer(b"")
            _check_head(headers, route.limit)
            body = await self._body(receive, route.limit)
            return None if body is None else await route.answer(body)
        except Refusal as refusal:
            return refused(refusal)
        except FlywheelError as error:  # a workspace's own functions may fail on what the contract allows
            log.error("%s %s: %s", scope["method"], scope["path"], " ".join(str(error).split()))
            return refused(Refusal(500, error.what, why=error.why, next=error.next, where=error.where))

    def _route(self, scope: Message) -> Route:
        methods = self._routes.get(scope["path"])
        if methods is None:
            raise Refusal(404, "there is nothing at this path", next="GET /openapi.json lists what there is")
        route = methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if route is None:
            raise Refusal(405, f"this path takes {', '.join(methods)}", headers={"allow": ", ".join(methods)})
        return route

    async def _body(self, receive: Receive, limit: int) -> bytes | None:
        """The body, or None if its sender went away.

        Raises:
            Refusal: 413, it is longer than the limit; 503, too much comes in at once.
        """
        message = await receive()
        if message["type"] != "http.disconnect" and not message["more_body"] and len(message["body"]) <= limit:
            body: bytes = message["body"]
            return body
        parts: list[bytes] = []
        size = 0
        try:
            while message["type"] != "http.disconnect":
                parts.append(message["body"])
                size += len(parts[-1])
                self._held += len(parts[-1])
                if size > limit:
                    raise _too_long(limit)
                if self._held > HELD_BYTES:
                    raise busy("too much comes in at once")
                if not message["more_body"]:
                    return b"".join(parts)
                message = await receive()
            return None
        finally:
            self._held -= size


def _check_head(headers: Mapping[bytes, bytes], limit: int) -> None:
    """Check what the headers say of the body.

    Raises:
        Refusal: 415 not plain JSON, 413 longer than the limit.
    """
    kind = headers.get(b"content-type", b"").partition(b";")
    charset = kind[2].strip().lower().replace(b'"', b"")
    if kind[0].strip().lower() != b"application/json" or charset not in (b"", b"charset=utf-8"):
        raise Refusal(415, "the body is not said to be JSON", next="send content-type: application/json")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refusal(415, "the body is compressed", next="send it without content-encoding")
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > limit:
        raise _too_long(limit)


def _too_long(limit: int) -> Refusal:
    return Refusal(413, f"the body is longer than {limit:,} bytes", next="send less at once")
