"""What must not hurt: faults 36 to 43 of events that come in over HTTP."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from flywheel.serve import sockets
from tests.integration.door_world import Client, Shop, now, outcome, shop

MINUTE = 60 * 1_000_000


@pytest.fixture(scope="module")
def open_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with shop(tmp_path_factory.mktemp("shop")) as made:
        yield made


def iso(microseconds: int, zone: str = "Z") -> str:
    at = time.gmtime(microseconds // 1_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", at) + zone


def raw(url: str, *parts: bytes, wait: float = 10) -> bytes:
    """What a server says to these bytes until it closes, or until `wait` seconds have passed in silence."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as connection:
        said = b""
        try:
            for part in parts:
                connection.sendall(part)
            while more := connection.recv(65536):
                said += more
        except (TimeoutError, ConnectionError):
            pass
        return said


def head(path: str, length: int, *more: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json", *more]
    return "\r\n".join([*lines, f"content-length: {length}", "", ""]).encode()


# 36: the same id again


def test_fault_36_the_same_outcome_twice_a_thousand_times_and_after_a_restart_is_one(tmp_path: Path) -> None:
    with shop(tmp_path) as made:
        assert made.client.outcomes(outcome("x")).json == {"accepted": True, "duplicate": False}
        assert made.client.outcomes(outcome("x")).json == {"accepted": True, "duplicate": True}
        answer = made.client.outcomes([outcome("y")] * 1000)
        assert (answer.status, sum(r["duplicate"] for r in answer.json["results"])) == (200, 999)
    with shop(tmp_path) as made:
        assert made.client.outcomes(outcome("x")).json["duplicate"]
        assert [row["id"] for row in made.stored("outcomes")] == ["x", "y"]


def test_fault_36_the_same_id_with_another_body_is_answered_as_a_duplicate_and_kept_aside(tmp_path: Path) -> None:
    with shop(tmp_path) as made:
        made.client.outcomes(outcome("x", value=1))
        other = made.client.outcomes(outcome("x", value=0))
        assert (other.status, other.json) == (200, {"accepted": True, "duplicate": True})
        assert [row["value"] for row in made.stored("outcomes")] == [1]
        assert [row["id"] for row in made.stored("conflicts")] == ["x"]


# 37 and 38: at odd times, and for what was never shown


def test_fault_37_an_outcome_before_its_decision_or_years_late_is_taken(open_shop: Shop) -> None:
    assert open_shop.client.outcomes(outcome("early", decision_id="not yet")).status == 200
    assert open_shop.client.outcomes(outcome("late", ts="2003-01-01T00:00:00Z")).status == 200


def test_fault_37_clocks_may_be_four_minutes_fast_and_not_six(open_shop: Shop) -> None:
    assert open_shop.client.outcomes(outcome("fast", ts=iso(now() + 4 * MINUTE))).status == 200
    for ahead in (6 * MINUTE, 365 * 24 * 60 * MINUTE):
        refused = open_shop.client.outcomes(outcome("ahead", ts=iso(now() + ahead)))
        assert refused.status == 422
        assert "in the future" in refused.error["what"]
    mixed = open_shop.client.outcomes([outcome("fine"), outcome("ahead", ts=iso(now() + 6 * MINUTE))])
    assert (mixed.status, [r["accepted"] for r in mixed.json["results"]]) == (207, [True, False])


@pytest.mark.parametrize(
    ("ts", "said"),
    [
        ("2026-01-05T10:00:00", "no time zone"),
        ("yesterday", "no time"),
        (1_767_225_600, "expected"),
        (1_767_225_600_000, "expected"),
        (1_767_225_600_000_000, "expected"),
        (1_767_225_600.5, "expected"),
        ("1767225600", "no time"),
    ],
)
def test_fault_37_a_time_without_a_zone_or_in_epochs_is_refused_with_how_to_write_it(
    open_shop: Shop, ts: object, said: str
) -> None:
    refused = open_shop.client.outcomes(outcome("odd", ts=ts))
    assert refused.status == 422
    assert said in refused.error["what"]
    assert refused.error["where"] == "/ts"
    assert "2026-01-05T10:00:00Z" in refused.error["next"]


def test_fault_37_any_zone_is_the_same_instant(open_shop: Shop) -> None:
    for event_id, ts in (("utc", "2026-01-05T10:00:00Z"), ("ist", "2026-01-05T15:30:00+05:30")):
        open_shop.client.outcomes(outcome(event_id, ts=ts))
    kept = {row["id"]: row["ts"] for row in open_shop.stored("outcomes")}
    assert kept["utc"] == kept["ist"] == 1_767_607_200_000_000


def test_fault_38_an_outcome_of_something_never_shown_is_taken_and_left_to_collect(open_shop: Shop) -> None:
    decision = open_shop.client.rank().json["decision_id"]
    assert open_shop.client.outcomes(outcome("unseen", decision_id=decision, item="never shown")).status == 200
    assert open_shop.client.outcomes(outcome("unknown", decision_id="never made")).status == 200


# 39: one bad one of many


def test_fault_39_one_bad_one_of_a_thousand_is_told_and_the_others_are_on_disk(open_shop: Shop) -> None:
    sent: list[Any] = [outcome(f"many{i}") for i in range(1000)]
    sent[617] |= {"value": "yes"}
    answer = open_shop.client.outcomes(sent)
    assert answer.status == 207
    results = answer.json["results"]
    assert [i for i, result in enumerate(results) if not result["accepted"]] == [617]
    assert results[617]["error"] == {"what": "expected `float`, got `str`", "where": "/617/value"}
    kept = {row["id"] for row in open_shop.stored("outcomes")}
    assert sum(event["event_id"] in kept for event in sent) == 999


def test_fault_39_a_list_without_a_good_one_is_refused_as_a_whole(open_shop: Shop) -> None:
    answer = open_shop.client.outcomes([{"event_id": "a"}, 5, None, outcome(valeu=1), outcome(value=2)])
    assert answer.status == 422
    errors = [result["error"] for result in answer.json["results"]]
    assert [error["where"] for error in errors] == ["/0", "/1", "/2", "/3", "/4/value"]
    assert errors[3]["why"] == "the nearest known name is value"


# 40: bodies that are none

BROKEN = [
    ("", 400, "byte 0"),
    ("{", 400, "byte 1"),
    ('{"user": "u", "candidates": ["a",]}', 400, "byte 33"),
    ('{"user": "u", "candidates": [NaN]}', 400, "byte 29"),
    ('{"user": "u", "candidates": ["a"], "context": {"hour": Infinity}}', 400, "byte 55"),
    ('{"user": "u", "candidates": ["a"], "context": {"hour": 1e999}}', 400, "/context/hour"),
    ('{"user": "\\ud800", "candidates": ["a"]}', 400, "byte 16"),
    (b'{"user": "\xed\xa0\x80", "candidates": ["a"]}', 400, "byte 10"),
    (b'{"user": "\xff", "candidates": ["a"]}', 400, "byte 10"),
    (b'\xef\xbb\xbf{"user": "u", "candidates": ["a"]}', 400, "byte 0"),
    ('{"user": "u", "candidates": ["a"]}'.encode("utf-16"), 400, "byte 0"),
    ("[" * 100_000, 400, "byte 64"),
    ('{"a":' * 100_000, 400, "byte 320"),
    ('{"user": "u", "candidates": ["a"]} {}', 400, "byte 36"),
    ('{"user": 5, "candidates": ["a"', 400, "byte 30"),
    ("[]", 422, ""),
    ("null", 422, ""),
    ('"text"', 422, ""),
    ('{"user": 5, "candidates": ["a"]}', 422, "/user"),
    ('{"user": "u", "candidates": []}', 422, "/candidates"),
    ('{"user": "u", "candidates": [5]}', 422, "/candidates/0"),
    ('{"user": "u", "candidates": [{"hour": 3}]}', 422, "/candidates/0"),
    ('{"user": "u", "candidates": [{"item": "a", "hour": "3"}]}', 422, "/candidates/0/hour"),
    ('{"user": "u", "candidates": [{"item": "a", "genres": "x|y"}]}', 422, "/candidates/0/genres"),
    ('{"user": "u", "candidates": ["a"], "context": {"device": {}}}', 422, "/context/device"),
    ('{"user": "u", "candidates": ["a"], "k": 0}', 422, "/k"),
    ('{"user": "u", "candidates": ["a"], "k": 1001}', 422, "/k"),
    ('{"user": "u\\u0000", "candidates": ["a"]}', 422, "/user"),
    ('{"user": "u", "candidates": ["a", "b\\nc"]}', 422, "/candidates/1"),
]


@pytest.mark.parametrize(("body", "status", "where"), BROKEN)
def test_fault_40_a_body_that_is_none_is_refused_with_its_place(
    open_shop: Shop, body: str | bytes, status: int, where: str
) -> None:
    answer = open_shop.client("POST", "/v1/rank", body)
    assert answer.status == status, answer.body
    assert answer.error.get("where", "") == where, answer.error
    assert open_shop.client("GET", "/healthz").status == 200


@pytest.mark.parametrize("path", ["/v1/outcomes", "/v1/events", "/invocations"])
def test_fault_40_no_broken_body_is_an_error_of_the_server_elsewhere(open_shop: Shop, path: str) -> None:
    for body, _, _ in BROKEN:
        for given in (body, b"[%s]" % body if isinstance(body, bytes) else f"[{body}]"):
            assert open_shop.client("POST", path, given).status in (200, 400, 422), given[:50]


def test_fault_40_an_unknown_name_is_refused_with_the_nearest_known_one(open_shop: Shop) -> None:
    refused = open_shop.client.rank(context={"devcie": "tv"})
    assert refused.status == 422
    assert refused.error["what"] == "unknown name 'devcie'"
    assert refused.error["why"] == "the nearest known name is device"


def test_fault_40_of_a_key_that_stands_twice_the_last_counts(open_shop: Shop) -> None:
    answer = open_shop.client("POST", "/v1/rank", '{"user": "u", "candidates": ["a"], "candidates": ["b"]}')
    assert [item["item"] for item in answer.json["items"]] == ["b"]


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": ""},
        {"content_type": "application/json; charset=latin-1"},
        {"content_encoding": "gzip"},
        {"content_encoding": "br"},
    ],
)
def test_fault_40_another_type_charset_or_coding_is_refused(open_shop: Shop, headers: dict[str, str]) -> None:
    answer = open_shop.client("POST", "/v1/rank", b"\x1f\x8b" + bytes(100), **headers)
    assert answer.status == 415
    assert answer.error
    charset = open_shop.client(
        "POST", "/v1/rank", '{"user":"u","candidates":["a"]}', content_type="Application/JSON; charset=UTF-8"
    )
    assert charset.status == 200


def test_fault_40_what_is_no_http_is_refused_in_the_same_form(open_shop: Shop) -> None:
    said = raw(open_shop.url, b"\x16\x03\x01 this is TLS\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]
    assert raw(open_shop.url, b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 100_000, wait=2).startswith(b"HTTP/1.1 431")


# 41: too much, too slow, too many


def test_fault_41_a_gigabyte_is_refused_at_once_whether_announced_or_not(open_shop: Shop) -> None:
    before = psutil.Process().memory_info().rss
    assert b" 413 " in raw(open_shop.url, head("/v1/rank", 10**9), b"x" * 1000, wait=0.5)
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    streamed = head("/v1/outcomes", 0, "transfer-encoding: chunked").replace(b"content-length: 0\r\n", b"")
    assert b" 413 " in raw(open_shop.url, streamed, *[chunk] * 300, wait=0.5)
    assert psutil.Process().memory_info().rss - before < 100 * 2**20
    assert open_shop.client("GET", "/healthz").status == 200


def test_fault_41_a_body_somewhat_too_long_is_answered_on_a_connection_that_lives_on(open_shop: Shop) -> None:
    with closing(Client(open_shop.url)) as client:
        answer = client("POST", "/v1/rank", b" " * (2**20 + 1))
        assert (answer.status, answer.error["what"]) == (413, "the body is longer than 1,048,576 bytes")
        assert client("GET", "/healthz").status == 200


def test_fault_41_whoever_goes_on_sending_after_the_refusal_is_cut(open_shop: Shop) -> None:
    host, port = open_shop.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(head("/v1/rank", 10**9))
        with pytest.raises(ConnectionError):
            connection.sendall(bytes(2**28))


def test_fault_41_too_many_candidates_and_too_long_ids_are_refused(open_shop: Shop) -> None:
    many = open_shop.client.rank(candidates=[str(i) for i in range(201)])
    assert (many.status, many.error["where"]) == (422, "/candidates")
    assert open_shop.client.rank(candidates=[str(i) for i in range(100_000)]).status in (413, 422)
    for long in ("x" * 10_240, "x" * 257, "é" * 129, "🛒" * 65):
        assert open_shop.client.rank(user=long).error["where"] == "/user"
        assert open_shop.client.outcomes(outcome(item=long)).error["where"] == "/item"
    for fits in ("x" * 256, "é" * 128, "🛒" * 64):
        assert open_shop.client.rank(user=fits).status == 200


def test_fault_41_whoever_sends_a_byte_now_and_then_is_cut(open_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(sockets, "BODY_SECONDS", 0.6)
    host, port = open_shop.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port)), timeout=5) for _ in range(3)]
    slow[1].sendall(b"POST /v1/rank HT")
    slow[2].sendall(head("/v1/rank", 100) + b"{")
    end = time.monotonic() + 4
    said = [connection.recv(1000) for connection in slow]
    assert time.monotonic() < end
    assert said[0] == b"", "whoever has asked nothing yet is told nothing"
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in said[1:])
    for connection in slow:
        connection.close()
    assert open_shop.client("GET", "/healthz").status == 200


def test_fault_41_idle_connections_stand_in_nobodys_way(open_shop: Shop) -> None:
    host, port = open_shop.url.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port)), timeout=5) for _ in range(400)]
    assert [open_shop.client.rank().status for _ in range(20)] == [200] * 20
    for connection in idle:
        connection.close()


def test_fault_41_whoever_hangs_up_midway_leaves_nothing_behind(open_shop: Shop) -> None:
    before = len(open_shop.stored("outcomes"))
    host, port = open_shop.url.removeprefix("http://").split(":")
    for sent in (b"POST", head("/v1/outcomes", 500), head("/v1/outcomes", 500) + b'[{"event_id":'):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(sent)
    assert open_shop.client("GET", "/healthz").status == 200
    assert len(open_shop.stored("outcomes")) == before


# 42: ids are opaque

ODD = [
    "../../etc/passwd", "'; DROP TABLE decisions; --", "{{7*7}}", "<script>alert(1)</script>", "=cmd()", "@SUM(A1)",
    "\u202eright to left", "שלום", "👩\u200d👩\u200d👧", "é", "e\u0301", " ", "%00", "\\", '"', "null", "0", "-1",
    "\u00a0",
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_fault_42_an_odd_id_comes_back_as_it_was(open_shop: Shop, odd: str) -> None:
    answer = open_shop.client.rank(user=odd, candidates=[odd, "plain"], context={"device": odd})
    assert answer.status == 200
    assert odd in [item["item"] for item in answer.json["items"]]
    kept = json.loads(open_shop.stored("decisions")[-1]["body"])
    assert (kept["user"], kept["context"]["device"]) == (odd, odd)
    assert odd in kept["candidates"]
    known = odd in [row["id"] for row in open_shop.stored("outcomes")]
    assert open_shop.client.outcomes(outcome(odd, decision_id=odd, item=odd)).json["duplicate"] is known
    (row,) = [row for row in open_shop.stored("outcomes") if row["id"] == odd]
    assert (row["decision_id"], row["item"]) == (odd, odd)


@pytest.mark.parametrize("bad", ["", "a\nb", "a\rb", "a\tb", "\x00", "\x7f", "\x85", "\u2028"])
def test_fault_42_an_id_that_breaks_a_line_is_refused(open_shop: Shop, bad: str) -> None:
    assert open_shop.client.rank(user=bad).error["where"] == "/user"
    assert open_shop.client.rank(candidates=["a", {"item": bad}]).error["where"].startswith("/candidates/1")
    for name in ("event_id", "decision_id", "item"):
        assert open_shop.client.outcomes(outcome(**{name: bad})).error["where"] == f"/{name}"
    row = {"event": bad, "at": "2026-01-05T10:00:00Z"}
    assert open_shop.client("POST", "/v1/events", row).error["where"] == "/event"
