"""The documents of the API: complete, valid, and made from what the functions use."""

import importlib
from dataclasses import fields
from typing import Any

import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from functions.http_endpoint import Routes
from functions.options import Options
from functions.upload.api import OptionFields
from infra.apidocs import openapi
from tests.test_structure import services


def routes(function: str) -> list[Routes]:
    modules = {"upload": ["functions.upload.main", "functions.upload.tus.routes"]}
    names = modules.get(function, [f"functions.{function}.main"])
    return [importlib.import_module(name)._ROUTES for name in names]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document()


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


def test_every_option_is_declared() -> None:
    assert list(OptionFields.__struct_fields__) == [field.name for field in fields(Options)]


def test_every_field_of_a_response_is_described_or_plain(document: dict[str, Any]) -> None:
    """Every reference leads to a component."""
    text = str(document)
    for name in document["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in text
