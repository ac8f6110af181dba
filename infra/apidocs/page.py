"""Makes the page /docs of the OpenAPI document: HTML and a style sheet, without scripts."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

_METHODS: Final = ("get", "head", "post", "put", "patch", "delete", "options")
_CODE: Final = re.compile(r"`([^`]+)`")
_LINK: Final = re.compile(r"\[([^\]]+)\]\((https://[^)\s]+)\)")
_SCHEMES: Final = {
    "password": "username and password (HTTP Basic)",
    "token": "bearer token",
    "session": "cookie",
    "link": "link in a mail",
}


def page(document: Mapping[str, Any]) -> str:
    """Returns the page."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    info = document["info"]
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f"<title>{escape(info['title'])} API</title>"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">\n<link rel="stylesheet" href="/docs.css">\n</head>\n<body>'
    yield from _navigation(document)
    yield f"<main>\n<h1>{escape(info['title'])} API <small>{escape(info['version'])}</small></h1>"
    yield from (f"<p>{_text(paragraph)}</p>" for paragraph in info["description"].split("\n\n"))
    yield (
        '<p>The same as documents for programs: <a href="/openapi.json">openapi.json</a> (OpenAPI 3.1) and, for the '
        'events, <a href="/asyncapi.json">asyncapi.json</a> (AsyncAPI 3).</p>'
    )
    yield from _authentication(document)
    for tag in document["tags"]:
        yield f'<section id="{_anchor(tag["name"])}">\n<h2>{escape(tag["name"])}</h2>'
        yield f"<p>{_text(tag['description'])}</p>"
        for path, method, operation in _operations(document, tag["name"]):
            yield from _operation(path, method, operation)
        yield "</section>"
    yield from _common_problems(document)
    yield '<section id="types">\n<h2>Types</h2>'
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield from _type(name, schema)
    yield "</section>\n</main>\n</body>\n</html>"


def _navigation(document: Mapping[str, Any]) -> Iterator[str]:
    yield '<nav aria-label="Contents">\n<h2><a href="#authentication">Authentication</a></h2>'
    for tag in document["tags"]:
        yield f'<h2><a href="#{_anchor(tag["name"])}">{escape(tag["name"])}</a></h2>\n<ul>'
        for path, method, operation in _operations(document, tag["name"]):
            target = escape(operation["operationId"])
            yield f'<li><a href="#{target}">{_badge(method)} <span>{escape(path)}</span></a></li>'
        yield "</ul>"
    yield '<h2><a href="#problems">Problems of any request</a></h2>\n<h2><a href="#types">Types</a></h2>\n</nav>'


def _operations(document: Mapping[str, Any], tag: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods and tag in methods[method]["tags"]:
                yield path, method, methods[method]


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f'<article id="{escape(operation["operationId"])}">'
    yield f"<h3>{_badge(method)} <code>{escape(path)}</code> {escape(operation['summary'])}</h3>"
    if "description" in operation:
        yield f"<p>{_text(operation['description'])}</p>"
    yield f'<p class="access">{_access(operation["security"])}</p>'
    if parameters := operation.get("parameters"):
        yield "<h4>Parameters</h4>"
        rows = [
            (each["name"], each["in"], each["required"], each.get("description"), each["schema"]) for each in parameters
        ]
        yield from _table(
            ("name", "in", "type", "meaning"),
            [
                (_name(name, required), escape(place), _kind(schema), _meaning(meaning, schema))
                for name, place, required, meaning, schema in rows
            ],
        )
    if body := operation.get("requestBody"):
        yield f"<h4>Body{'' if body['required'] else ' (optional)'}</h4>"
        for kind, content in body["content"].items():
            words = _kind(content["schema"]) if content["schema"] else "the bytes"
            yield f"<p><code>{escape(kind)}</code>: {words}</p>"
            if "properties" in content["schema"]:
                yield from _fields(content["schema"])
    yield "<h4>Responses</h4>"
    responses = {status: each for status, each in operation["responses"].items() if "$ref" not in each}
    yield from _table(
        ("status", "body", "meaning"),
        [
            (f'<span class="status s{status[0]}">{status}</span>', _content(each), _response(each))
            for status, each in responses.items()
        ],
    )
    yield "</article>"


def _access(security: list[dict[str, list[str]]]) -> str:
    if not security:
        return "For anyone."
    ways = " or ".join(
        f'<a href="#authentication-{scheme}">{_SCHEMES[scheme]}</a>' for each in security for scheme in each
    )
    scopes = [scope for each in security for several in each.values() for scope in several]
    needed = f" A key needs the scope <code>{escape(scopes[0])}</code>." if scopes else ""
    return f"Needs: {ways}.{needed}"


def _content(response: Mapping[str, Any]) -> str:
    """Returns the type of a JSON body, or the content type of another one."""
    return "<br>".join(
        _kind(each["schema"]) if each["schema"] else f"<code>{escape(kind.partition(';')[0])}</code>"
        for kind, each in response.get("content", {}).items()
    )


def _response(response: Mapping[str, Any]) -> str:
    headers = "".join(
        f"<br><code>{escape(name)}</code>: {_text(each['description'])}"
        for name, each in response.get("headers", {}).items()
    )
    return _text(response["description"]) + headers


def _authentication(document: Mapping[str, Any]) -> Iterator[str]:
    yield '<section id="authentication">\n<h2>Authentication</h2>\n<dl>'
    for name, scheme in document["components"]["securitySchemes"].items():
        label = _SCHEMES[name]
        yield f'<dt id="authentication-{name}">{label[0].upper()}{label[1:]}</dt>'
        yield f"<dd>{_text(scheme['description'])}</dd>"
    yield "</dl>\n</section>"


def _common_problems(document: Mapping[str, Any]) -> Iterator[str]:
    yield '<section id="problems">\n<h2>Problems of any request</h2>'
    rows = [
        (f'<span class="status s{name[7]}">{name.removeprefix("Problem")}</span>', _text(each["description"]))
        for name, each in sorted(document["components"]["responses"].items())
    ]
    yield from _table(("status", "meaning"), rows)
    yield "</section>"


def _type(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f'<article id="type-{escape(name)}">\n<h3><code>{escape(name)}</code></h3>'
    if "description" in schema:
        yield f"<p>{_text(schema['description'])}</p>"
    yield from _fields(schema)
    yield "</article>"


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    yield from _table(
        ("field", "type", "meaning"),
        [
            (_name(name, name in required), _kind(value), _meaning(value.get("description"), value))
            for name, value in schema.get("properties", {}).items()
        ],
    )


def _name(name: str, required: bool) -> str:
    return f"<code>{escape(name)}</code>" + (' <span class="required">required</span>' if required else "")


def _meaning(text: str | None, schema: Mapping[str, Any]) -> str:
    parts = [_text(text)] if text else []
    if "default" in schema and schema["default"] is not None:
        parts.append(f"Default: <code>{escape(json.dumps(schema['default']))}</code>.")
    if examples := schema.get("examples"):
        shown = ", ".join(f"<code>{escape(str(each))}</code>" for each in examples)
        parts.append(f"Such as {shown}.")
    return " ".join(parts)


def _kind(schema: Mapping[str, Any]) -> str:
    """Returns a schema in a few words."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f'<a href="#type-{escape(name)}">{escape(name)}</a>'
    if alternatives := schema.get("anyOf"):
        return " or ".join(_kind(each) for each in alternatives)
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_kind(schema['items'])}"
    if kind == "object":
        return "form" if "properties" in schema else "object"
    return escape(_WORDS.get(schema.get("format", ""), _WORDS.get(kind, kind))) + _bounds(schema)


_WORDS: Final = {"string": "text", "date-time": "time (RFC 3339)", "binary": "file"}


def _bounds(schema: Mapping[str, Any]) -> str:
    for unit, least, most in (("", "minimum", "maximum"), (" characters", "minLength", "maxLength")):
        if least in schema and most in schema:
            return f", {schema[least]:g} to {schema[most]:g}{unit}"
        if most in schema:
            return f", at most {schema[most]:g}{unit}"
        if least in schema:
            return f", at least {schema[least]:g}{unit}"
    return ""


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield (
        '<div class="table"><table>\n<thead><tr>'
        + "".join(f"<th>{head}</th>" for head in heads)
        + "</tr></thead>\n<tbody>"
    )
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</tbody>\n</table></div>"


def _badge(method: str) -> str:
    return f'<span class="method {method}">{method.upper()}</span>'


def _anchor(name: str) -> str:
    return escape(name.lower().replace(" ", "-"))


def _text(text: str) -> str:
    """Returns text with `code` and [links](https://...) as HTML."""
    return _LINK.sub(r'<a href="\2">\1</a>', _CODE.sub(r"<code>\1</code>", escape(text)))
