"""Decoding of requests by the types that the OpenAPI document is made from."""

from typing import Annotated, Literal

import pytest
from flask import Request
from msgspec import Meta, Struct, field
from werkzeug.test import EnvironBuilder

from functions.http_endpoint import Unprocessable, read_json, read_query
from functions.operation import Id, check


class Query(Struct):
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    wait: Annotated[float, Meta(ge=0, le=25)] = 0.0
    after: str | None = None
    order: Literal["newest", "oldest"] = "newest"
    state: Literal["done", "failed"] | None = None
    user: Annotated[Id | None, Meta(description="Whose.")] = None


class Form(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=5)]
    scopes: list[Literal["read", "delete"]] = field(default_factory=list)
    days: Annotated[Annotated[int, Meta(ge=1, le=9)] | None, Meta(description="Until it expires.")] = None
    is_active: bool = True
    labels: dict[str, str] | None = None
    seconds: Annotated[int, Meta(ge=60, le=316_224_000)] = 60
    volume: Annotated[float, Meta(ge=0.5, le=9)] = 1.0
    at: Literal["end"] | Annotated[list[Annotated[float, Meta(ge=0)]], Meta(min_length=1)] | None = None


def query(text: str) -> Query:
    return read_query(Request(EnvironBuilder("/", query_string=text).get_environ()), Query)


def form(body: dict[str, object]) -> Form:
    return read_json(Request(EnvironBuilder("/", method="POST", json=body).get_environ()), Form)


def test_query_is_decoded() -> None:
    assert query("limit=7&wait=1.5&after=x&order=oldest&unknown=1&limit=8") == Query(7, 1.5, "x", "oldest")
    assert query("") == Query()
    assert query("after=null").after == "null"


@pytest.mark.parametrize(
    ("text", "name", "fault"),
    [
        *((f"limit={value}", "limit", "must be a whole number from 1 to 500") for value in ("0", "501", "x", "1.5")),
        *((f"wait={value}", "wait", "must be a number from 0 to 25") for value in ("-1", "25.1", "nan", "inf", "")),
        ("order=random", "order", "must be one of newest, oldest"),
        *((f"state={value}", "state", "must be one of done, failed") for value in ("null", "NULL", "", "None")),
        *((f"user={value}", "user", "must be an id") for value in ("null", "", "ann")),
    ],
)
def test_invalid_parameter_is_named(text: str, name: str, fault: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        query(text)
    assert refused.value.fields == {name: fault}
    assert str(refused.value) == f"Correct the following and try again: {name} {fault}."


def test_json_is_decoded() -> None:
    made = form({"name": "Ann", "scopes": ["read"], "days": 9, "is_active": False, "labels": {"a": "b"}, "unknown": 1})
    assert made == Form("Ann", ["read"], 9, False, {"a": "b"})
    assert not made.is_active
    assert form({"name": "Ann", "days": None}) == Form("Ann", [], None, True, None)


@pytest.mark.parametrize("text", ["7", "7.0", "70e-1", "0.7e1"])
def test_whole_number_may_have_a_point(text: str) -> None:
    """JSON Schema's integers are the numbers without a fraction."""
    body = f'{{"name": "Ann", "days": {text}, "volume": {text}}}'
    made = read_json(Request(EnvironBuilder("/", method="POST", data=body).get_environ()), Form)
    assert (made.days, made.volume) == (7, 7.0)
    assert isinstance(made.days, int)


@pytest.mark.parametrize("text", ["7.5", "1e400", "-1e400", "1e300", "9007199254740992.0"])
def test_other_numbers_are_not_whole(text: str) -> None:
    body = f'{{"name": "Ann", "days": {text}}}'
    with pytest.raises(Unprocessable, match="days must be a whole number from 1 to 9"):
        read_json(Request(EnvironBuilder("/", method="POST", data=body).get_environ()), Form)


def test_defaults_are_not_shared() -> None:
    form({"name": "Ann"}).scopes.append("read")
    assert form({"name": "Ann"}).scopes == []


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({}, {"name": "is missing"}),
        ({"name": ""}, {"name": "must have 1 to 5 characters"}),
        ({"name": "x" * 6}, {"name": "must have 1 to 5 characters"}),
        ({"name": 1}, {"name": "must be text"}),
        (
            {"name": "Ann", "seconds": 1, "volume": 0},
            {"seconds": "must be a whole number from 60 to 316,224,000", "volume": "must be a number from 0.5 to 9"},
        ),
        (
            {"scopes": ["write"], "days": "9", "is_active": "yes", "labels": {"a": 1}},
            {
                "name": "is missing",
                "scopes": "must be a list of read, delete",
                "days": "must be a whole number from 1 to 9",
                "is_active": "must be true or false",
                "labels": "must be an object",
            },
        ),
        *(({"name": "Ann", "at": at}, {"at": "must be end or a list of numbers"}) for at in ([], "x", [-1], ["x"], 1)),
    ],
)
def test_all_invalid_fields_are_named(body: dict[str, object], faults: dict[str, str]) -> None:
    with pytest.raises(Unprocessable) as refused:
        form(body)
    assert refused.value.fields == faults


def test_valid_fields_are_returned_beside_the_faults() -> None:
    found = check(Form, {"name": "Ann", "days": 0})
    rest = {"seconds": 60, "volume": 1.0, "at": None}
    assert found.values == {"name": "Ann", "scopes": [], "is_active": True, "labels": None, **rest}
    assert found.faults == {"days": "must be a whole number from 1 to 9"}
