"""The door as ASGI: which route, whether it may be asked, the body within its limits, and the answer as bytes.

One dictionary of routes and no middleware: a request pays for nothing that it does not use.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flywheel.serve.answers import Answer, refused
from flywheel.serve.refusals import Refusal

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Route:
    """One thing to ask for, how long its body may be in bytes (0: it has none), and what answers it."""

    method: str
    path: str
    answer: Callable[[bytes], Awaitable[Answer]]
    limit: int = 0


class Door:
    """An ASGI application."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes: dict[str, dict[str, Route]] = {}
        for route in routes:
            self._routes.setdefault(route.path, {})[route.method] = route

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request; whoever hangs up first is not answered."""
        try:
            answer = await self._answer(scope, receive)
        except Refusal as refusal:
            answer = refused(refusal)
        if answer is None:
            return
        headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Mapping[str, Any], receive: Receive) -> Answer | None:
        route = self._route(scope)
        if not route.limit:
            return await route.answer(b"")
        headers = dict(scope["headers"])
        _readable(headers, route.limit)
        body = await _body(receive, route.limit)
        return None if body is None else await route.answer(body)

    def _route(self, scope: Mapping[str, Any]) -> Route:
        methods = self._routes.get(scope["path"])
        if methods is None:
            raise Refusal(404, "there is nothing at this path", next="GET /openapi.json lists what there is")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = methods.get(method)
        if route is None:
            raise Refusal(405, f"this path takes {', '.join(methods)}", headers={"allow": ", ".join(methods)})
        return route


def _readable(headers: Mapping[bytes, bytes], limit: int) -> None:
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


async def _body(receive: Receive, limit: int) -> bytes | None:
    """The body, or None if its sender went away.

    Raises:
        Refusal: 413, it is longer than the limit.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        return None
    body: bytes = message["body"]
    if not message["more_body"] and len(body) <= limit:
        return body
    parts, size = [body], len(body)
    while message["more_body"] and size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message["body"])
        size += len(message["body"])
    if size > limit:
        raise _too_long(limit)
    return b"".join(parts)


def _too_long(limit: int) -> Refusal:
    return Refusal(413, f"the body is longer than {limit:,} bytes", next="send less at once")
