"""Connections that nobody can hold for long: uvicorn's HTTP over httptools, with an end to everything slow or large."""

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from flywheel.serve.refusals import Refused, Why

HEAD_BYTES = 2**16
HEAD_SECONDS = 10.0  # from connecting, or from the first byte, to the end of the headers
BODY_SECONDS = 30.0  # from the first byte to the end of the body
UNREAD_SECONDS = 30.0  # that an answer may lie there unread
LEFT_BYTES = 2**22  # of a body, once it is refused: most clients read no answer before they have sent it all
IDLE_SECONDS = 75


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a first request."""
        super().connection_made(transport)
        self.since = self.loop.time()
        self.reading, self.headed = True, False
        self.head = self.left = 0
        self.unread: float | None = None

    def data_received(self, data: bytes) -> None:
        """Parse what came; headers without end are cut."""
        super().data_received(data)
        if not self.headed:
            self.head += len(data)
            if self.head > HEAD_BYTES and not self.transport.is_closing():
                self._cut(431, "the headers are too long")

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self.since = self.loop.time()
        self.reading, self.headed = True, False
        self.head = self.left = 0

    def on_headers_complete(self) -> None:
        """The end of its headers."""
        self.headed = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body; what comes after the answer is dropped, and not for long."""
        super().on_body(body)
        if self.cycle.response_complete:
            self.left += len(body)
            if self.left > LEFT_BYTES:
                self.transport.abort()

    def on_message_complete(self) -> None:
        """Its last byte."""
        self.reading = False
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP."""
        self._cut(400, msg)

    def end_if_overdue(self, now: float) -> None:
        """Close what has been slow for too long; `now` is the loop's time."""
        if self.transport is None or (self.transport.is_closing() and not self.transport.get_write_buffer_size()):
            return
        if self.transport.get_write_buffer_size():
            self.unread = self.unread or now
            if now - self.unread > UNREAD_SECONDS:
                self.transport.abort()
            return
        self.unread = None
        if self.reading and now - self.since > (BODY_SECONDS if self.headed else HEAD_SECONDS):
            if self.head or self.headed:
                self._cut(408, "the request came too slowly")
            else:  # nothing was asked, so nothing is answered: it would be taken for the answer to what is asked next
                self.transport.close()

    def _cut(self, status: int, what: str) -> None:
        """Answer, unless an answer is under way, and close."""
        body = msgspec.json.encode(Refused(Why(what)))
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


def sweep(connections: "set[Any]", now: float) -> None:
    """Close every connection that is overdue."""
    for connection in list(connections):
        connection.end_if_overdue(now)
