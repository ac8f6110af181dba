"""What the function server answers before a function sees the request."""

import json

import pytest
from werkzeug.test import Client

from infra.serve import application
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("target", "method", "path", "status"),
    [
        ("status", "GET", "/jobs/%0A", 404),
        ("status", "GET", "/favicon.ico", 404),
        ("sweep", "GET", "/anything", 405),
    ],
)
def test_what_the_framework_refuses_is_a_problem(target: str, method: str, path: str, status: int) -> None:
    source = str(ROOT / f"functions/{target}/main.py")
    client = Client(application({"FUNCTION_TARGET": target, "FUNCTION_SOURCE": source}))
    answer = client.open(path, method=method)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert json.loads(answer.get_data())["status"] == status
    assert json.loads(answer.get_data())["detail"].endswith(".")
    assert status != 405 or "POST" in answer.headers["Allow"]
