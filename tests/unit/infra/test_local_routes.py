import pytest

from infra.local.ingress import router
from infra.local.manifests import Function


def function(name: str, *paths: str, public: bool = True) -> Function:
    return Function(name, list(paths), public, 1, 0, 1, 60, 300, {})


FIND = router(
    [
        function("login", "/login", "/.well-known/jwks.json"),
        function("status", "/jobs"),
        function("deep", "/jobs/deep"),
        function("edit", "/jobs/*/tags", "/jobs/*/split"),
        function("convert", "/convert", public=False),
    ]
)


@pytest.mark.parametrize(
    ("host", "path", "expected"),
    [
        ("localhost", "/jobs", "status"),
        ("localhost", "/jobs/", "status"),
        ("localhost", "/jobs/x", "status"),
        ("localhost", "/jobs/deep/er", "deep"),
        ("localhost", "/jobs/deeper", "status"),
        ("localhost", "/jobs/x/tags", "edit"),
        ("localhost", "/jobs/x/split", "edit"),
        ("localhost", "/jobs/x/tags/y", "edit"),
        ("localhost", "/jobs/x/tagsy", "status"),
        ("localhost", "/jobs/x/y/tags", "status"),
        ("localhost", "/jobs/tags", "status"),
        ("localhost", "/jobsx", None),
        ("localhost", "/", None),
        ("localhost", "/.well-known/jwks.json", "login"),
        ("localhost", "/.well-known", None),
        ("localhost", "/convert", None),
        ("", "/login", "login"),
        ("example.org", "/login", "login"),
        ("status.localhost", "/anything", "status"),
        ("convert.localhost", "/", None),
        ("nobody.localhost", "/login", None),
        ("status.localhost", "*", None),
        ("status.localhost", "", None),
    ],
)
def test_request_is_routed_to_its_function(host: str, path: str, expected: str | None) -> None:
    assert FIND(host, path) == expected


def test_empty_path_matches_everything_else() -> None:
    find = router([function("site", ""), function("status", "/jobs")])
    assert (find("a", "/"), find("a", "/x/y"), find("a", "/jobs/1")) == ("site", "site", "status")
