"""Declares HTTP operations: what a function's handlers accept and answer. The OpenAPI document is made from the same.

A function's ``api.py`` has its operations and their types; it imports no more than they need, so that the document is
made without the libraries of the handlers. The types are msgspec structs: handlers decode and encode with them
(``functions.http_endpoint``).
"""

import functools
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

T = TypeVar("T", bound=Struct)

#: How a request proves who sends it: by nothing, by a username and password (HTTP Basic), by a token, by the token of a
#: link in a mail, or by a token or the token of a link.
Access = Literal["anyone", "password", "token", "link", "token or link"]
#: What an API key must allow, for operations whose access is a token.
Scope = Literal["upload", "read", "delete", "account", "admin", "metrics"]

#: A point in time.
Timestamp = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
#: The id of a job or a user, 32 hexadecimal digits, or of a video or an MP3, 24.
Id = Annotated[str, Meta(pattern="^(?:[0-9a-f]{32}|[0-9a-f]{24})$")]

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
HTML: Final = "text/html; charset=utf-8"
FORM: Final = "application/x-www-form-urlencoded"
#: What 429 stands for where ``functions.shares`` limits the requests of a user.
TOO_MANY_TRANSFERS: Final = (
    "The user, or the client's network, has too many transfers: wait for the seconds in `Retry-After`."
)
#: The headers of ``functions.rate_limits``.
LIMITS: Final = {
    "RateLimit-Policy": 'The limits that apply, such as `"transfers";q=8;qu="concurrent-requests"`.',
    "RateLimit": 'What is left of each, such as `"transfers";r=7`.',
}


class Problem(Struct, frozen=True, omit_defaults=True):
    """An error (RFC 9457)."""

    type: Annotated[str, Meta(description="Always about:blank: the status says which kind of error it is.")]
    title: Annotated[str, Meta(description="The status in words.")]
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: Annotated[str, Meta(description="One sentence for the user: what happened and what to do.")]
    errors: Annotated[dict[str, str] | None, Meta(description="What is wrong with each invalid field.")] = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A response.

    Attributes:
        status: its status.
        meaning: when it is sent, a sentence.
        type: of its JSON; None if it has no body or one that is not JSON.
        content_type: of its body; empty if it has none.
        headers: the meaning of each header of its own.
    """

    status: int
    meaning: str
    type: Any = None
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.type is not None and not self.content_type:
            object.__setattr__(self, "content_type", JSON)


@dataclass(frozen=True, slots=True)
class Body:
    """What a request's body may be.

    Attributes:
        content: for each content type a struct, or ``bytes`` for the bytes of a file.
        required: whether there must be one.
    """

    content: Mapping[str, Any]
    required: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """A method of a path.

    Attributes:
        method: the HTTP method.
        path: with parameters in braces: ``/jobs/{job}``.
        summary: what it does, without a period: "List jobs".
        answers: the responses other than problems.
        description: more about it, in Markdown.
        access: how a request proves who sends it.
        scope: what an API key must allow.
        parameters: the meaning of each parameter of the path.
        query: the type of the query.
        headers: the type of its own request headers.
        body: what the body may be.
        problems: the problems of its own, by status. The document adds those that any request can meet, 401 where a
            token is needed, and 422 where there is a query or a body.
        section: of the document; that of the function if it is empty.
    """

    method: str
    path: str
    summary: str
    answers: tuple[Answer, ...]
    description: str = ""
    access: Access = "token"
    scope: Scope | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    query: type[Struct] | None = None
    headers: type[Struct] | None = None
    body: Body | None = None
    problems: Mapping[int, str] = field(default_factory=dict)
    section: str = ""


class Checked(NamedTuple):
    """What ``check`` found.

    Attributes:
        values: the decoded values of valid fields; defaults for those that are left out.
        faults: what is wrong with each other field, as the rest of a sentence that begins with its name.
    """

    values: dict[str, Any]
    faults: dict[str, str]


def check(type_: type[Struct], values: Mapping[str, Any], *, strict: bool = True) -> Checked:
    """Decodes each field of a struct by itself, so that all invalid ones can be named. Unknown fields are ignored.

    Args:
        type_: the struct.
        values: the fields by name.
        strict: whether numbers must be numbers; otherwise they may be text, as in a query.
    """
    checked = Checked({}, {})
    for each in _fields(type_):
        name = each.encode_name
        if name in values:
            try:
                value = msgspec.convert(values[name], each.type, strict=strict)
            except msgspec.ValidationError:
                checked.faults[name] = _fault(each.type, values[name])
            else:
                if value is None and not strict:  # msgspec takes the text "null" for None, but no text stands for it
                    checked.faults[name] = _fault(each.type, values[name])
                else:
                    checked.values[each.name] = value
        elif each.required:
            checked.faults[name] = "is missing"
        else:
            has_factory = each.default_factory is not msgspec.NODEFAULT
            checked.values[each.name] = each.default_factory() if has_factory else each.default
    return checked


@functools.cache
def _fields(type_: type[Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(type_)


def _fault(annotation: Any, value: object) -> str:
    """Returns what an invalid value must be, as the rest of a sentence: "must be a number from 1 to 500"."""
    kind, limits = _unwrapped(annotation)
    if get_origin(kind) in _UNIONS:
        kinds = (each for each in get_args(kind) if each is not types.NoneType)
        return f"must be {' or '.join(_fault(each, None).removeprefix('must be ') for each in kinds)}"
    if kind is str and isinstance(value, str):
        if "pattern" in limits:
            return "must be an id"
        return f"must have {limits.get('min_length', 0)} to {limits['max_length']} characters"
    if get_origin(kind) is Literal:
        return f"must be {'one of ' if len(get_args(kind)) > 1 else ''}{_listed(kind)}"
    if get_origin(kind) is list:
        return f"must be a list of {_listed(_unwrapped(get_args(kind)[0])[0])}"
    bounds = f" from {limits['ge']:,.15g} to {limits['le']:,.15g}" if {"ge", "le"} <= limits.keys() else ""
    return f"must be {_KINDS[get_origin(kind) or kind]}{bounds}"


def _listed(kind: Any) -> str:
    """Returns the values of a Literal, or the name of another type in a list."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        return "valid objects"
    return ", ".join(map(str, get_args(kind))) or _PLURALS.get(kind) or _KINDS[kind]


def _unwrapped(annotation: Any) -> tuple[Any, dict[str, Any]]:
    """Returns the type without None and Annotated, a union if it has several, and the limits that Annotated has set."""
    limits: dict[str, Any] = {}
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *metas = get_args(annotation)
            limits |= {name: value for meta in metas for name in _LIMITS if (value := getattr(meta, name)) is not None}
        elif get_origin(annotation) in _UNIONS:
            others = [each for each in get_args(annotation) if each is not types.NoneType]
            if len(others) > 1:
                return annotation, limits
            (annotation,) = others
        else:
            return annotation, limits


_UNIONS: Final = (Union, types.UnionType)
_LIMITS: Final = ("ge", "le", "min_length", "max_length", "pattern")
_PLURALS: Final[Mapping[Any, str]] = {int: "whole numbers", float: "numbers"}
_KINDS: Final[Mapping[Any, str]] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
}
