"""The service against its own description: whatever fits it is answered, and as it says."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from starlette.testclient import TestClient

schemathesis = pytest.importorskip("schemathesis")


CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


@pytest.fixture
def described(make_client: Callable[..., TestClient]) -> object:
    client = make_client(hosts=("testserver",))
    return schemathesis.openapi.from_asgi("/openapi.json", client.app)


SCHEMA = schemathesis.pytest.from_fixture("described")


@SCHEMA.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_described(case) -> None:
    checks = schemathesis.checks.load_all_checks() or schemathesis.checks.CHECKS
    case.call_and_validate(checks=checks.get_by_names(CHECKS))
