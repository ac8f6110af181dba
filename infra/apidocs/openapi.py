"""Makes the OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1) of the operations of all functions."""

import importlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from functions.operation import JSON, LIMITS, PROBLEM, Access, Answer, Operation, Problem
from infra import front

ROOT: Final = Path(__file__).resolve().parents[2]
_REFERENCE: Final = "#/components/schemas/{name}"


class Section(NamedTuple):
    """Operations that belong together: those of some functions."""

    name: str
    text: str
    functions: tuple[str, ...]


SECTIONS: Final = (
    Section("Accounts", "Registering, logging in, and confirming the address.", ("register", "login", "confirm")),
    Section("Tokens", "Validating tokens, and the keys that verify them.", ("validate",)),
    Section("Your account", "Profile, password, sessions, API keys, deletion.", ("account",)),
    Section("Uploads", "Sending videos, in one request or in parts (tus).", ("upload",)),
    Section("Jobs", "Following conversions, and deleting videos and MP3s.", ("status",)),
    Section("MP3s", "Downloading MP3s, changing their tags, and splitting them.", ("download", "edit")),
    Section("Webhooks", "Being told when a job has ended.", ("webhooks",)),
    Section("Administration", "Users, the jobs of all, what waits and what is stored; metrics.", ("admin", "metrics")),
)
_ABOUT: Final = (
    "mp3burst converts videos to MP3s. Register and log in, upload a video, wait for its job to be done, and download "
    "the MP3.\n\nErrors are `application/problem+json` (RFC 9457) with one sentence in `detail` that says what "
    "happened and what to do. What belongs to another user gets 404, as if it did not exist."
)
_SCHEMES: Final = {
    "password": {"type": "http", "scheme": "basic", "description": "Those of `POST /register`."},
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The token of `POST /login`, or an API key of `POST /keys`, in the header "
        "`Authorization: Bearer TOKEN`.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-mp3burst",
        "description": "The cookie of `POST /login?cookie=true`; without HTTPS its name is `mp3burst`. Requests that "
        "change something must come from the origin of the installation (`Origin`).",
    },
    "link": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "The parameter `token` of a link in a mail.",
    },
}
_ACCESS: Final[dict[Access, tuple[str, ...]]] = {
    "anyone": (),
    "password": ("password",),
    "token": ("token", "session"),
    "link": ("link",),
    "token or link": ("token", "session", "link"),
}
_UNAUTHENTICATED: Final = "The token is missing, invalid or expired: log in."
_NOT_ALLOWED: Final = (
    "The API key lacks the scope, the account is locked, or the request has a cookie and comes from another site."
)
_INVALID: Final = "A value is missing or invalid; `errors` says what is wrong with each."
#: Of every request: those of the servers in front of the functions.
COMMON: Final = tuple(status for status in front.MESSAGES if status != 405)
_RETRY_AFTER: Final = {"Retry-After": "Seconds to wait before the next try."}
_PROBLEM_HEADERS: Final[dict[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": "The scheme that the server expects."},
    413: LIMITS,
    429: _RETRY_AFTER | LIMITS,
    503: _RETRY_AFTER,
    507: _RETRY_AFTER,
}


def operations() -> dict[str, list[Operation]]:
    """Returns the operations of each function, from its ``api.py`` files in the order of their definition."""
    found: dict[str, list[Operation]] = {}
    for path in sorted((ROOT / "functions").glob("**/api.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        module = importlib.import_module(".".join(parts))
        defined = [value for value in vars(module).values() if isinstance(value, Operation)]
        found.setdefault(parts[1], []).extend(defined)
    return found


def version() -> str:
    """Returns the version of mp3burst."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def document() -> dict[str, Any]:
    """Returns the OpenAPI document, ready for JSON."""
    declared = operations()
    schemas = _Schemas(each for several in declared.values() for each in several)
    paths: dict[str, dict[str, Any]] = {}
    for section in SECTIONS:
        for name in section.functions:
            for operation in declared[name]:
                described = _operation(operation, operation.section or section.name, schemas)
                paths.setdefault(operation.path, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "mp3burst",
            "version": version(),
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": section.name, "description": section.text} for section in SECTIONS],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {_common_name(status): _problem(status, front.MESSAGES[status]) for status in COMMON},
            "securitySchemes": _SCHEMES,
        },
    }


class _Schemas:
    """The JSON Schemas of the operations' types."""

    def __init__(self, declared: Iterable[Operation]) -> None:
        types = list(dict.fromkeys([Problem, *(type_ for each in declared for type_ in _types(each))]))
        schemas, self.components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
        self._references = dict(zip(types, schemas, strict=True))

    def reference(self, type_: Any) -> Any:
        """Returns the schema of a JSON body's type, by reference."""
        return self._references[type_]

    def body(self, kind: str, type_: Any) -> Any:
        """Returns the schema of a request's body with this content type."""
        if kind == JSON:
            return self.reference(type_)
        return {} if type_ is bytes else _of_text(type_)


def _types(operation: Operation) -> Iterator[Any]:
    """Yields the types of JSON bodies."""
    yield from (answer.type for answer in operation.answers if answer.type is not None)
    if operation.body and JSON in operation.body.content:
        yield operation.body.content[JSON]


def _of_text(type_: type[Struct]) -> dict[str, Any]:
    """Returns the schema of a struct whose fields are text, as in a form, a query or headers: none can be null."""
    _, components = msgspec.json.schema_components([type_], ref_template=_REFERENCE)
    schema: dict[str, Any] = components[type_.__name__]
    schema["properties"] = {name: _without_null(value) for name, value in schema["properties"].items()}
    return schema


def _operation(operation: Operation, tag: str, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "tags": [tag],
        "operationId": _operation_id(operation),
        "summary": operation.summary,
        "security": [
            {scheme: [operation.scope] if operation.scope and scheme == "token" else []}
            for scheme in _ACCESS[operation.access]
        ],
        "responses": _responses(operation, schemas),
    }
    if operation.description:
        described["description"] = operation.description
    if parameters := list(_parameters(operation)):
        described["parameters"] = parameters
    if operation.body:
        content = {kind: {"schema": schemas.body(kind, type_)} for kind, type_ in operation.body.content.items()}
        described["requestBody"] = {"required": operation.body.required, "content": content}
    return described


def _operation_id(operation: Operation) -> str:
    words = re.findall(r"\w+", operation.path.replace(".well-known", "").removesuffix(".json"))
    return "_".join([operation.method.lower(), *words])


def _parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name, meaning in operation.parameters.items():
        yield {"name": name, "in": "path", "required": True, "description": meaning, "schema": {"type": "string"}}
    for place, type_ in (("query", operation.query), ("header", operation.headers)):
        if type_ is not None:
            schema = _of_text(type_)
            for name, value in schema["properties"].items():
                if not (place == "query" and name == "token" and "link" in _ACCESS[operation.access]):
                    yield _parameter(name, place, name in schema["required"], value)


def _parameter(name: str, place: str, required: bool, value: dict[str, Any]) -> dict[str, Any]:
    described = {"name": name, "in": place, "required": required}
    if meaning := value.pop("description", None):
        described["description"] = meaning
    return {**described, "schema": value}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of a value that may be left out, but not be null."""
    schema = {name: value for name, value in schema.items() if not (name == "default" and value in (None, ""))}
    if alternatives := schema.pop("anyOf", None):
        (schema_of_value,) = (each for each in alternatives if each != {"type": "null"})
        schema |= schema_of_value
    return schema


def _responses(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    has_body = operation.method != "HEAD"
    responses = {str(answer.status): _answer(answer, schemas, has_body) for answer in operation.answers}
    problems = dict(operation.problems)
    if "token" in _ACCESS[operation.access]:
        problems.setdefault(401, _UNAUTHENTICATED)
        problems.setdefault(403, _NOT_ALLOWED)
    if operation.parameters:
        problems.setdefault(404, front.NOT_FOUND)
    if operation.body or any(_may_be_invalid(each) for each in _parameters(operation)):
        problems.setdefault(422, _INVALID)
    responses |= {str(status): _problem(status, meaning, has_body) for status, meaning in problems.items()}
    for status in COMMON:
        responses.setdefault(str(status), {"$ref": f"#/components/responses/{_common_name(status)}"})
    return dict(sorted(responses.items()))


def _may_be_invalid(parameter: dict[str, Any]) -> bool:
    """Returns whether a parameter of the query can be missing or have an invalid value."""
    is_any_text = parameter["schema"] == {"type": "string"}
    return parameter["in"] == "query" and (parameter["required"] or not is_any_text)


def _answer(answer: Answer, schemas: _Schemas, has_body: bool) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.meaning}
    if answer.headers:
        described["headers"] = _headers(answer.headers)
    if answer.content_type and has_body:
        is_json = answer.content_type == JSON
        described["content"] = {answer.content_type: {"schema": schemas.reference(answer.type) if is_json else {}}}
    return described


def _problem(status: int, meaning: str, has_body: bool = True) -> dict[str, Any]:
    described: dict[str, Any] = {"description": meaning, "headers": _headers(_PROBLEM_HEADERS.get(status, {}))}
    if has_body:
        described["content"] = {PROBLEM: {"schema": {"$ref": _REFERENCE.format(name=Problem.__name__)}}}
    return described


def _headers(meanings: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": meaning, "schema": {"type": "string"}} for name, meaning in meanings.items()}


def _common_name(status: int) -> str:
    return f"Problem{status}"
