"""The door against its own description: whatever schemathesis makes of the document, the answer is one it tells of."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from tests.integration.door_world import Shop, shop

# Hypothesis sees that somebody drew from Python's own generator meanwhile; other threads of the process may.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

CHECKS: list[Any] = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]
POSTS = ("/v1/rank", "/v1/outcomes", "/v1/events", "/invocations")
PAGES = ("/v1/model", "/metrics", "/healthz", "/readyz", "/ping", "/version", "/openapi.json")


@pytest.fixture(scope="module")
def open_shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with shop(tmp_path_factory.mktemp("shop")) as made:
        yield made


def answered(open_shop: Shop, path: str, method: str, mode: GenerationMode, examples: int) -> dict[int, int]:
    """How often each status was the answer to what is made in a mode; every answer is checked."""
    document = schemathesis.openapi.from_url(f"{open_shop.url}/openapi.json")
    seen: dict[int, int] = {}

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=document[path][method].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        response = case.call(timeout=10)
        case.validate_response(response, checks=CHECKS)
        seen[response.status_code] = seen.get(response.status_code, 0) + 1

    ask()
    return seen


@pytest.mark.parametrize("path", POSTS)
def test_what_the_document_allows_is_taken(open_shop: Shop, path: str) -> None:
    seen = answered(open_shop, path, "POST", GenerationMode.POSITIVE, 25)
    assert seen[200] >= 10
    assert set(seen) <= {200, 207, 422}, "a schema cannot say how many bytes an id has, or when now is"


@pytest.mark.parametrize("path", POSTS)
def test_what_the_document_forbids_is_refused(open_shop: Shop, path: str) -> None:
    assert set(answered(open_shop, path, "POST", GenerationMode.NEGATIVE, 25)) <= {207, 400, 415, 422}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_what_the_document_says(open_shop: Shop, path: str) -> None:
    assert set(answered(open_shop, path, "GET", GenerationMode.POSITIVE, 3)) == {200}
