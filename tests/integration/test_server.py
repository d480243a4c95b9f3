"""The door on real sockets: what it answers, whom it lets in, and how it changes and ends."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flywheel.errors import ConfigError
from flywheel.serve.access import Tokens
from flywheel.serve.server import running, serve
from flywheel.serve.serving import Serving
from flywheel.sources.group_commit import GroupCommit
from flywheel.sources.inbox import Inbox
from tests.integration.door_world import (
    CONFIG,
    Client,
    Shop,
    now,
    outcome,
    ranker,
    settings,
    shop,
    told,
)

RANK, INGEST = "rank-token-0123456789", "ingest-token-0123456789"


@pytest.fixture(scope="module")
def open_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with shop(tmp_path_factory.mktemp("shop")) as made:
        yield made


def test_a_ranked_list_is_a_decision_on_disk(open_shop: Shop) -> None:
    answer = open_shop.client.rank(
        candidates=["a", {"item": "b", "hour": 3, "genres": ["x"]}], context={"device": "tv"}, k=2
    )
    assert answer.status == 200
    body = answer.json
    assert set(body) == {"decision_id", "generation", "arm", "items"}
    assert {item["item"] for item in body["items"]} == {"a", "b"}
    assert all(0 < item["propensity"] <= 1 for item in body["items"])
    assert answer.headers["x-decision-id"] == body["decision_id"]
    assert answer.headers["x-model-version"] == "0"
    (kept,) = [json.loads(row["body"]) for row in open_shop.stored("decisions") if row["id"] == body["decision_id"]]
    assert kept["user"] == "u"
    assert kept["context"] == {"device": "tv"}
    assert [shown["item"] for shown in kept["shown"]] == [item["item"] for item in body["items"]]
    assert next(s for s in kept["shown"] if s["item"] == "b")["attributes"] == {"hour": 3.0, "genres": ["x"]}


def test_decision_ids_sort_by_time(open_shop: Shop) -> None:
    ids = [open_shop.client.rank().json["decision_id"] for _ in range(20)]
    assert ids == sorted(set(ids))


def test_one_outcome_is_answered_by_one_result_and_a_list_by_a_list(open_shop: Shop) -> None:
    assert open_shop.client.outcomes(outcome("single")).json == {"accepted": True, "duplicate": False}
    several = open_shop.client.outcomes([outcome("single"), outcome("other")])
    assert several.status == 200
    assert [r["duplicate"] for r in several.json["results"]] == [True, False]
    assert open_shop.client.outcomes([]).json == {"results": []}


def test_an_outcome_without_a_time_is_received_now(open_shop: Shop) -> None:
    before = now()
    open_shop.client.outcomes(outcome("timed"))
    (kept,) = [row for row in open_shop.stored("outcomes") if row["id"] == "timed"]
    assert before <= kept["ts"] <= now()


def test_ready_rows_are_kept_as_they_came(open_shop: Shop) -> None:
    row = {
        "event": "r1",
        "at": "2026-01-05T11:00:00+01:00",
        "who": "u",
        "what": "a",
        "clicked": 0,
        "odd": [],
        "n": 1e300,
    }
    answer = open_shop.client("POST", "/v1/events", [row, {"event": "r2"}, {"at": "2026-01-05", "event": "r3"}])
    assert answer.status == 207
    assert [r["accepted"] for r in answer.json["results"]] == [True, False, False]
    assert [r["error"]["where"] for r in answer.json["results"][1:]] == ["/1/at", "/2/at"]
    (kept,) = [row for row in open_shop.stored("rows") if row["id"] == "r1"]
    assert kept["ts"] == 1_767_607_200_000_000
    assert json.loads(kept["body"]) == row


def test_a_number_is_an_outcome_where_the_contract_says_so(tmp_path: Path) -> None:
    with shop(tmp_path, made=settings(kind="number")) as made:
        assert made.client.outcomes(outcome(value=3.25)).status == 200
        assert made.client.outcomes('{"event_id":"e","decision_id":"d","item":"a","value":1e999}').status == 400


@pytest.mark.parametrize(
    "form",
    [
        {"dataframe_split": {"columns": ["who", "what", "hour"], "data": [["u", "a", 1], ["v", "b", None]]}},
        {"dataframe_records": [{"who": "u", "what": "a", "hour": 1}, {"who": "v", "what": "b", "clicked": 1}]},
        {"instances": [{"who": "u", "what": "a", "genres": ["x"]}, {"who": "v", "what": "b"}]},
        {"inputs": {"who": ["u", "v"], "what": ["a", "b"]}},
    ],
)
def test_invocations_take_a_table_as_mlflow_does(open_shop: Shop, form: object) -> None:
    before = len(open_shop.stored("decisions"))
    answer = open_shop.client("POST", "/invocations", form)
    assert answer.status == 200
    assert answer.json == {"predictions": [0.5, 0.5]}
    assert len(open_shop.stored("decisions")) == before


def test_invocations_score_by_the_champion_in_the_order_of_the_rows(tmp_path: Path) -> None:
    with shop(tmp_path) as made:
        made.serving.swap(ranker(generation=3), told(3))
        rows = [{"who": who, "what": what} for who, what in [("u", "a"), ("v", "b"), ("u", "c")]]
        assert made.client("POST", "/invocations", {"dataframe_records": rows}).json == {"predictions": [0.9, 0.9, 0.1]}
        wrong = made.client("POST", "/invocations", {"dataframe_records": [{"who": "u"}], "instances": []})
        assert wrong.status == 422


def test_the_model_page_tells_what_serves_and_how_fresh_it_is(tmp_path: Path) -> None:
    with shop(tmp_path) as made:
        page = made.client("GET", "/v1/model").json
        assert page["generation"] == 0
        assert page["arms"] == {"wheel": 0.95, "holdback": 0.05}
        assert page["state"] is None
        assert 0 <= page["staleness_seconds"] < 5
        made.serving.swap(ranker(generation=4), told(4))
        assert made.client("GET", "/v1/model").json["generation"] == 4
        assert made.client.rank().headers["x-model-version"] == "4"


def test_the_numbers_count_what_happened(tmp_path: Path) -> None:
    with shop(tmp_path) as made:
        made.client.rank()
        made.client.outcomes([outcome("1"), outcome("1"), outcome("1", value=0), outcome("2", value=7)])
        made.client("GET", "/nowhere")
        made.serving.swap(ranker(generation=2), told(2))
        made.serving.kept()
        page = made.client("GET", "/metrics").body.decode()
    for line in (
        'flywheel_requests_total{route="/v1/rank",status="200"} 1.0',
        'flywheel_requests_total{route="/v1/outcomes",status="207"} 1.0',
        'flywheel_requests_total{route="other",status="404"} 1.0',
        'flywheel_request_seconds_count{route="/v1/rank"} 1.0',
        'flywheel_decisions_total{arm="wheel",generation="0"} 1.0',
        'flywheel_events_total{kind="outcome",result="accepted"} 1.0',
        'flywheel_events_total{kind="outcome",result="duplicate"} 1.0',
        'flywheel_events_total{kind="outcome",result="conflict"} 1.0',
        'flywheel_events_total{kind="outcome",result="refused"} 1.0',
        "flywheel_generation 2.0",
        "flywheel_queue_depth 0.0",
        "flywheel_reloads_total 1.0",
        "flywheel_reloads_failed_total 1.0",
    ):
        assert line in page.splitlines(), line
    shown = [float(line.split()[-1]) for line in page.splitlines() if line.startswith("flywheel_slots_total")]
    assert sum(shown) == 3


def test_the_examples_of_the_document_are_true(open_shop: Shop) -> None:
    told_of = open_shop.client("GET", "/openapi.json").json
    posts = {path: operations["post"] for path, operations in told_of["paths"].items() if "post" in operations}
    assert set(posts) == {"/v1/rank", "/v1/outcomes", "/v1/events", "/invocations"}
    for path, operation in posts.items():
        (sent,) = operation["requestBody"]["content"]["application/json"]["examples"].values()
        answer = open_shop.client("POST", path, sent["value"])
        assert answer.status == 200, answer.body
        shape = operation["responses"]["200"]["content"]["application/json"]["examples"]["one"]["value"]
        assert set(answer.json) == set(shape)
    for path in ("/healthz", "/readyz"):
        content = told_of["paths"][path]["get"]["responses"]["200"]["content"]
        assert open_shop.client("GET", path).json == content["application/json"]["examples"]["one"]["value"]


def test_what_mlflow_clients_ask_first_is_there(open_shop: Shop) -> None:
    assert open_shop.client("GET", "/ping").status == 200
    assert open_shop.client("GET", "/version").body.decode().count(".") == 2
    assert open_shop.client("HEAD", "/healthz").body == b""


def test_other_paths_and_methods_are_refused_in_the_same_form(open_shop: Shop) -> None:
    assert open_shop.client("GET", "/nowhere").status == 404
    wrong = open_shop.client("GET", "/v1/rank")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert wrong.error


def test_without_tokens_only_this_machine_is_answered_to(open_shop: Shop) -> None:
    for host in ("localhost", "127.0.0.1:99", "[::1]:99"):
        assert open_shop.client("GET", "/healthz", host=host).status == 200
    for host in ("evil.example", "localhost.evil.example:80", "127.0.0.1.evil.example", ""):
        assert open_shop.client("GET", "/healthz", host=host).status == 403
        assert open_shop.client("POST", "/v1/rank", {"user": "u", "candidates": ["a"]}, host=host).error


def test_a_token_opens_its_own_scope_only(tmp_path: Path) -> None:
    with shop(tmp_path, Tokens(RANK, INGEST)) as made, closing(Client(made.url, RANK)) as ranks:
        assert made.client("GET", "/healthz", host="shop.example").status == 200
        assert made.client("GET", "/readyz").status == 200
        nobody = made.client.rank()
        assert (nobody.status, nobody.headers["www-authenticate"]) == (401, "Bearer")
        assert ranks.rank().status == 200
        assert ranks("GET", "/v1/model").status == 200
        assert ranks("GET", "/metrics").status == 200
        assert ranks.outcomes(outcome()).status == 403
        with closing(Client(made.url, INGEST)) as ingests, closing(Client(made.url, RANK[:-1])) as guesses:
            assert ingests.outcomes(outcome()).status == 200
            assert ingests.rank().status == 403
            assert guesses.rank().status == 401
        assert made.client("GET", "/metrics", authorization=f"Basic {RANK}").status == 401


def test_a_scope_without_a_token_is_closed_once_there_is_one(tmp_path: Path) -> None:
    with shop(tmp_path, Tokens(rank=RANK)) as made, closing(Client(made.url, RANK)) as ranks:
        assert ranks.rank().status == 200
        assert ranks.outcomes(outcome()).status == 403
        assert made.client.outcomes(outcome()).status == 401


@pytest.mark.parametrize("token", ["short", "with a space in between it", "ü" * 20])
def test_a_token_that_cannot_be_one_is_refused_at_the_start(token: str) -> None:
    with pytest.raises(ConfigError, match="FLYWHEEL_INGEST_TOKEN is no token"):
        Tokens(ingest=token)
    assert RANK not in repr(Tokens(RANK))


class Nothing:
    """An inbox that no test comes to."""


def test_other_machines_are_not_answered_without_tokens() -> None:
    with pytest.raises(ConfigError, match="open to other machines"):
        serve(CONFIG, Serving(ranker(), told(), clock=now), Nothing(), host="0.0.0.0")  # type: ignore[arg-type]


def test_a_port_that_is_taken_is_told(open_shop: Shop) -> None:
    port = int(open_shop.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match="cannot be answered on"):
        serve(CONFIG, Serving(ranker(), told(), clock=now), Nothing(), port=port)  # type: ignore[arg-type]


def test_the_front_page_is_the_newest_report_or_says_how_to_make_one(tmp_path: Path) -> None:
    pages = [b""]
    inbox = Inbox.open(None, tmp_path)
    serving = Serving(ranker(), told(), clock=now)
    tokens = Tokens(rank=RANK, ingest=INGEST)
    with (
        running(CONFIG, serving, GroupCommit(inbox), tokens, lambda: pages[-1]) as url,
        closing(Client(url)) as stranger,
        closing(Client(url, RANK)) as client,
    ):
        assert stranger("GET", "/").status == 401
        first = client("GET", "/")
        pages.append(b"<!doctype html><p>it turns</p>")
        second = client("GET", "/")
    inbox.close()
    assert first.status == second.status == 200
    assert b"flywheel report" in first.body
    assert second.body == pages[-1]
    assert second.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in second.headers["content-security-policy"]
