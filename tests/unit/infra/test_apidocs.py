"""The documents of the API: complete, valid, and made from what the functions use."""

import importlib
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from events.schema import EVENTS, BadEvent, parse
from functions.http_endpoint import Routes
from functions.operation import check
from functions.options import Options
from functions.upload.api import OptionFields, UploadQuery
from infra.apidocs import asyncapi, openapi
from infra.apidocs.site import documents
from tests.support.packages import modules_missing_from
from tests.support.paths import ROOT
from tests.test_structure import manifests, services

#: Fields of a valid event, by type.
EXAMPLES: dict[str, dict[str, Any]] = {
    type_: {field.name: 0 if field.name == "n" else "0" * 32 for field in fields(event)}
    for type_, event in EVENTS.items()
}
#: Hides the modules that the second argument lists, as if they were not installed.
HIDE = """
import sys
hidden = set(sys.argv.pop().split(","))
class Hider:
    def find_spec(self, name, path=None, target=None):
        if name in hidden:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hider())
"""


def routes(function: str) -> list[Routes]:
    modules = {"upload": ["functions.upload.main", "functions.upload.tus.routes"]}
    names = modules.get(function, [f"functions.{function}.main"])
    return [importlib.import_module(name)._ROUTES for name in names]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document()


def test_keys_that_verify_tokens_stand_with_tokens(document: dict[str, Any]) -> None:
    for path, method in (("/.well-known/jwks.json", "get"), ("/validate", "post")):
        assert document["paths"][path][method]["tags"] == ["Tokens"]


def test_it_is_valid_openapi(document: dict[str, Any]) -> None:
    OPENAPI_31_VALIDATOR.validate(document)
    assert document["openapi"].startswith("3.1.")


def test_every_public_function_is_in_a_section() -> None:
    annotations = {name: service["metadata"].get("annotations", {}) for name, service in services().items()}
    public = {name for name, each in annotations.items() if "mp3burst.dev/paths" in each}
    sections = [name for section in openapi.SECTIONS for name in section.functions]
    assert sorted(sections) == sorted(public)
    assert set(openapi.operations()) == public


@pytest.mark.parametrize("function", sorted(openapi.operations()))
def test_a_function_serves_what_it_declares(function: str) -> None:
    served = [operation for each in routes(function) for operation in each.operations]
    assert set(served) == set(openapi.operations()[function])


def test_every_operation_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    described = [operation for path in document["paths"].values() for operation in path.values()]
    assert len(described) == sum(map(len, openapi.operations().values()))
    for key in ("operationId", "summary"):
        assert len({each[key] for each in described}) == len(described)


def test_every_operation_that_takes_a_key_says_what_the_key_must_allow() -> None:
    declared = [operation for each in openapi.operations().values() for operation in each]
    unlimited = {each.path for each in declared if "token" in each.access and each.scope is None}
    assert unlimited == {"/validate"}, "any key may call these"
    assert not [each.path for each in declared if each.access in ("anyone", "password", "link") and each.scope]


@pytest.mark.parametrize("text", ["null", "NULL", "", "unknown"])
def test_no_parameter_but_a_text_takes_any_text(text: str) -> None:
    """Whoever filters by it learns that it has no effect, instead of getting everything."""
    declared = {each.query for operations in openapi.operations().values() for each in operations if each.query}
    for query in declared - {UploadQuery}:  # whose options functions.options reads
        schema = msgspec.json.schema_components([query])[1][query.__name__]
        for name, parameter in schema["properties"].items():
            kinds = parameter.get("anyOf", [parameter])
            is_text = any(kind.get("type") == "string" and "pattern" not in kind for kind in kinds)
            assert (name in check(query, {name: text}, strict=False).faults) >= (not is_text), (query, name)


def test_every_option_is_declared() -> None:
    assert list(OptionFields.__struct_fields__) == [field.name for field in fields(Options)]


def test_every_field_of_a_response_is_described_or_plain(document: dict[str, Any]) -> None:
    """Every reference leads to a component."""
    text = str(document)
    for name in document["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in text


def test_every_event_has_a_type_in_the_registry() -> None:
    registered = {
        document["spec"]["type"]: (document["spec"]["schema"], document["spec"]["description"])
        for _, document in manifests()
        if document["kind"] == "EventType"
    }
    assert registered == {
        type_: (event.schema_id(), event.json_schema()["description"]) for type_, event in EVENTS.items()
    }
    # Readers of the registry see the text as it is.
    assert not any("`" in description for _, description in registered.values())


@pytest.mark.parametrize("type_", sorted(EVENTS))
def test_schema_of_an_event_accepts_what_the_code_does(type_: str) -> None:
    schema = jsonschema_rs.Draft202012Validator(EVENTS[type_].json_schema())
    subject = {"job": "0" * 32, "user": "0" * 32, "delivery": "0" * 32, "n": 0}
    names = [field.name for field in fields(EVENTS[type_])]
    valid = {name: subject[name] for name in names}
    candidates = [valid, valid | {"new": 1}, {}]
    wrong: tuple[object, ...] = ("", "0" * 31, "A" * 32, "0" * 32 + "\n", -1, 2**31, 2**31 - 1, 1.5, True, None, [])
    candidates += [valid | {name: value} for name in names for value in wrong]
    for data in candidates:
        assert schema.is_valid(data) == is_accepted(type_, data), data


def is_accepted(type_: str, data: object) -> bool:
    try:
        parse(type_, data)
    except BadEvent:
        return False
    return True


def test_events_name_their_schema() -> None:
    document = asyncapi.document()
    for type_, event in EVENTS.items():
        message = document["components"]["messages"][event.__name__]
        assert message["name"] == type_
        headers = event(**EXAMPLES[type_]).headers("/mp3burst/upload")
        assert headers["ce-dataschema"] == event.schema_id()
        jsonschema_rs.Draft202012Validator(message["headers"]).validate(
            {name: value for name, value in headers.items() if name.startswith("ce-")}
        )
        assert document["components"]["schemas"][event.__name__] == event.json_schema()
        assert json.loads(documents()[asyncapi.schema_path(event)].content)["$id"] == event.schema_id()


def test_references_of_the_events_lead_somewhere() -> None:
    document = asyncapi.document()
    for reference in re.findall(r"'\$ref': '#/([^']+)'", str(document)):
        found = document
        for key in reference.split("/"):
            found = found[key]


class Page(HTMLParser):
    """Collects the ids, the links within the page, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.ids += filter(None, [attributes.get("id")])
        if tag in ("script", "img", "iframe", "style") or "style" in attributes:
            self.loaded.append(tag)
        if tag in ("a", "link"):
            self.links.append(attributes["href"] or "")
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_describes_every_operation_without_scripts(document: dict[str, Any]) -> None:
    text = documents()["/docs"].content.decode()
    page = Page(text)
    assert not page.open
    assert not page.loaded
    assert len(page.ids) == len(set(page.ids))
    inside = {link.removeprefix("#") for link in page.links if link.startswith("#")}
    assert inside <= set(page.ids)
    others = {link for link in page.links if not link.startswith(("#", "https://"))}
    assert others == {"/docs.css", "/openapi.json", "/asyncapi.json"}
    assert "](" not in text
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["operationId"] in inside
            assert operation["summary"] in text
            for scheme in {name for each in operation["security"] for name in each}:
                assert f"authentication-{scheme}" in inside
    for scheme in document["components"]["securitySchemes"].values():
        assert scheme["description"].partition("`")[0] in text


def test_documents_need_only_the_packages_of_their_image(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.argv = ['apidocs', sys.argv[1]]; runpy.run_module('infra.apidocs', run_name='__main__')"
    )
    hidden = ",".join(modules_missing_from("api", with_project=False))
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", HIDE + code, str(tmp_path), hidden],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "openapi.json").read_bytes() == documents()["/openapi.json"].content
