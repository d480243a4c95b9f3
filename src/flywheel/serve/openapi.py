"""What the door says of itself: an OpenAPI 3.1 document, made from the very types that bodies are read by.

Its examples are requests that this server takes and answers that it gives; a test sends them.
"""

from typing import Any

import msgspec

from flywheel.config import Config
from flywheel.serve.answers import Predictions, Ranked, Result, Results
from flywheel.serve.invoked import Table
from flywheel.serve.pages import Model
from flywheel.serve.refusals import Refused
from flywheel.serve.wire import Id, SentOutcome, Wire

Json = dict[str, Any]
DECISION = "019b76da-a800-7000-8000-000000000000"
ID: Json = msgspec.json.schema(Id)
FLAG: Json = {"type": "object", "additionalProperties": {"const": True}}
WHY = {
    400: "No JSON text, or a number that is out of range",
    401: "No token that is known",
    403: "The token is for something else; or, where there are no tokens, the host is not this machine",
    413: "Longer than the limit",
    415: "Not said to be JSON, or compressed",
    422: "Not what the contract says; `where` points at it",
    503: "Busy, or draining: nothing was taken, try again after `retry-after` seconds",
}
INTRODUCTION = """Rank items for people, and hear how they were received.

A 2xx means that what it answers for is on disk. Every other answer has the same body: what is wrong, why, what to do
and where it stands. Bodies are JSON in UTF-8, uncompressed; types are not converted, unknown names are refused, and of
a key that stands twice in one object the last counts. Ids are opaque: 1 to 256 bytes without control characters.
Times are ISO 8601 with a zone. Where there are tokens, send `authorization: Bearer …`."""


def document(config: Config, wire: Wire, version: str) -> bytes:
    """The whole of it, as JSON."""
    types = [wire.asked, SentOutcome, Table, Ranked, Result, Results, Predictions, Model, Refused]
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schemas["SentRow"] = _row(config)
    schemas["Table"] = _table(config, schemas["Table"])
    if wire.flag:
        schemas["SentOutcome"]["properties"]["value"] = {"enum": [0, 1]}
    told = {
        "openapi": "3.1.0",
        "info": {"title": config.product.name, "version": version, "description": INTRODUCTION},
        "paths": _paths(config),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                scope: {"type": "http", "scheme": "bearer", "description": f"The token for {scope}"}
                for scope in ("rank", "ingest")
            },
        },
    }
    return msgspec.json.encode(told)


def _paths(config: Config) -> Json:
    result: Json = {"accepted": True, "duplicate": False}
    ranked = {
        "decision_id": DECISION,
        "generation": 0,
        "arm": "wheel",
        "items": [{"item": "item7", "propensity": 0.92, "explored": False}],
    }
    taken = {
        200: _said("All of it is on disk", _either("Result", "Results"), one=result, list={"results": [result]}),
        207: _said("Some of it is on disk", _ref("Results")),
        422: _said(WHY[422], _either("Refused", "Results")),
    }
    rank = {200: _said("The decision, on disk", _ref("Ranked"), one=ranked)}
    scores = {200: _said("A score a row", _ref("Predictions"), one={"predictions": [0.42]})}
    draining = _said("Draining: this server was told to stop", _ref("Refused"))
    return {
        "/v1/rank": _post("Rank candidates for a user", "rank", _ref("Asked"), _asked(config), rank),
        "/v1/outcomes": _post("Say how items were received", "ingest", _one_or_more("SentOutcome"), _outcome(), taken),
        "/v1/events": _post("Bring ready rows", "ingest", _one_or_more("SentRow"), _ready(config), taken),
        "/invocations": _post(
            "The champion's scores of rows, as MLflow's scoring server gives them; nothing is logged",
            "rank",
            _ref("Table"),
            {"dataframe_records": [_record(config)]},
            scores,
        ),
        "/": _get("The page that says whether the wheel turns", _text("HTML", "text/html"), scope="rank"),
        "/v1/model": _get("What serves, and how fresh it is", _said("What serves", _ref("Model")), scope="rank"),
        "/metrics": _get("Numbers for Prometheus", _text("Prometheus' text format"), scope="rank"),
        "/healthz": _get("Whether the server is alive", _said("Yes", FLAG, one={"alive": True})),
        "/readyz": _get("Whether to send people here", _said("Yes", FLAG, one={"ready": True}), {503: draining}),
        "/ping": _get("As MLflow's scoring server has it", {"description": "Alive"}),
        "/version": _get("Flywheel's version", _text("The version")),
        "/openapi.json": _get("This document", _said("OpenAPI 3.1", {"type": "object"})),
    }


def _post(summary: str, scope: str, sent: Json, example: Json, answers: dict[int, Json]) -> Json:
    content = {"application/json": {"schema": sent, "examples": {"one": {"value": example}}}}
    operation = {
        "summary": summary,
        "security": [{}, {scope: []}],
        "requestBody": {"required": True, "content": content},
        "responses": _by_status({code: _said(why, _ref("Refused")) for code, why in WHY.items()} | answers),
    }
    return {"post": operation}


def _get(summary: str, answer: Json, others: dict[int, Json] | None = None, scope: str = "") -> Json:
    refused = {code: _said(WHY[code], _ref("Refused")) for code in ((401, 403) if scope else (403,))}
    responses = _by_status({200: answer} | refused | (others or {}))
    return {"get": {"summary": summary, "security": [{}, {scope: []}] if scope else [], "responses": responses}}


def _by_status(answers: dict[int, Json]) -> Json:
    return {str(status): answers[status] for status in sorted(answers)}


def _said(text: str, schema: Json, **examples: Any) -> Json:
    content: Json = {"schema": schema}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"description": text, "content": {"application/json": content}}


def _text(text: str, kind: str = "text/plain") -> Json:
    return {"description": text, "content": {kind: {"schema": {"type": "string"}}}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _either(*names: str) -> Json:
    return {"anyOf": [_ref(name) for name in names]}


def _one_or_more(name: str) -> Json:
    return {"anyOf": [_ref(name), {"type": "array", "items": _ref(name)}]}


def _columns(config: Config, *named: str) -> Json:
    """A row under the contract's names, of which these must be there."""
    contract = config.contract
    columns: Json = {name: {"type": ["number", "null"]} for name in contract.numeric}
    columns |= {name: {"type": ["string", "null"]} for name in contract.categorical}
    columns |= {name: {"type": ["array", "null"], "items": {"type": "string"}} for name in contract.lists}
    return {
        "type": "object",
        "properties": columns | dict.fromkeys(named, ID),
        "required": list(named),
        "additionalProperties": {"type": ["boolean", "number", "string", "array", "null"], "items": {"type": "string"}},
    }


def _row(config: Config) -> Json:
    """A ready row: what the contract does not name is kept, and told at the next turn."""
    event_id, timestamp = str(config.contract.event_id), config.contract.timestamp
    row = _columns(config, event_id)
    row["properties"][timestamp] = {"type": "string", "format": "date-time"}
    return row | {"required": [event_id, timestamp], "description": "A row under the contract's names."}


def _table(config: Config, table: Json) -> Json:
    """Rows in exactly one of MLflow's forms."""
    record = _columns(config, str(config.contract.user), str(config.contract.item))
    rows = {"type": "array", "items": record}
    forms = table["properties"] | {"dataframe_records": rows, "instances": rows}
    one = [{"required": [form], "properties": {form: {"not": {"type": "null"}}}} for form in Table.__struct_fields__]
    return table | {"properties": forms, "oneOf": one}


def _context(config: Config) -> Json:
    contract = config.contract
    values: Json = dict.fromkeys(contract.numeric[:1], 20.5)
    values |= dict.fromkeys(contract.categorical[:1], "phone")
    return values | {name: ["drama", "comedy"] for name in list(contract.lists)[:1]}


def _asked(config: Config) -> Json:
    candidates = ["item7", {"item": "item8", **_context(config)}]
    return {"user": "user1", "candidates": candidates, "context": _context(config), "k": 1}


def _outcome() -> Json:
    given = {"event_id": "outcome1", "decision_id": DECISION, "item": "item7", "value": 1.0}
    return given | {"ts": "2026-01-05T10:00:00Z"}


def _record(config: Config) -> Json:
    return {str(config.contract.user): "user1", str(config.contract.item): "item7", **_context(config)}


def _ready(config: Config) -> Json:
    contract = config.contract
    identity = {str(contract.event_id): "row1", contract.timestamp: "2026-01-05T10:00:00Z"}
    return identity | _record(config) | {contract.label: 1}
