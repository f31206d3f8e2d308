"""The service against its own description: whatever fits it is answered, and as it says."""

import pytest
from hypothesis import HealthCheck, settings
from starlette.testclient import TestClient

schemathesis = pytest.importorskip("schemathesis")


@pytest.fixture
def described(client: TestClient) -> object:
    return schemathesis.openapi.from_asgi("/openapi.json", client.app)


SCHEMA = schemathesis.pytest.from_fixture("described")


@SCHEMA.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_answers_are_as_described(case) -> None:
    case.headers["Host"] = "127.0.0.1"
    answer = case.call()
    checks = schemathesis.checks
    assert answer.status_code < 500
    case.validate_response(
        answer,
        checks=[
            checks.not_a_server_error,
            checks.load_all_checks() and checks.CHECKS.get_one("status_code_conformance"),
            checks.CHECKS.get_one("content_type_conformance"),
            checks.CHECKS.get_one("response_schema_conformance"),
        ],
    )
