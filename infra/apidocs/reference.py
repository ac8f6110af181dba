"""Makes the reference of calls in docs/api.md from the operations that the OpenAPI document is made from.

``python -m infra.apidocs.reference`` rewrites it, and tests/test_docs.py fails as long as it is out of date.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

from msgspec import Struct, structs

from functions.operation import FORM, JSON, Access, Operation, Scope
from infra.apidocs import openapi

FILE: Final = openapi.ROOT / "docs" / "api.md"
_BEGIN: Final = "<!-- made by python -m infra.apidocs.reference -->\n"
_END: Final = "<!-- the end of what it makes -->\n"
_HEAD: Final = "| call | what it does | request | response |\n|---|---|---|---|\n"
_SCOPES_HEAD: Final = "| scope | calls |\n|---|---|\n"
_ACCESS: Final[dict[Access, str]] = {
    "anyone": "",
    "password": "HTTP Basic",
    "token": "Bearer{scope}",
    "link": "the `token` of a link",
    "token or link": "Bearer{scope}, or the `token` of a link",
}


def reference() -> str:
    """Returns the reference.

    For each section of the document it has a heading and a table with a row for each operation; then a table of scopes.
    """
    tables: dict[str, list[str]] = {section.name: [] for section in openapi.SECTIONS}
    for section in openapi.SECTIONS:
        for function in section.functions:
            for operation in openapi.operations()[function]:
                tables[operation.section or section.name].append(_row(operation))
    sections = "".join(f"\n### {name}\n\n{_HEAD}{''.join(rows)}" for name, rows in tables.items())
    return f"{sections}\n### Scopes of API keys\n\n{_SCOPES_HEAD}{''.join(_scopes())}\n"


def _scopes() -> Iterator[str]:
    """Yields a row for each scope of API keys, with the calls that need it."""
    operations = [operation for each in openapi.operations().values() for operation in each]
    for scope in get_args(Scope):
        calls = [f"`{_call(operation)}`" for operation in operations if operation.scope == scope]
        yield f"| `{scope}` | {', '.join(calls)} |\n"


def updated(text: str) -> str:
    """Returns docs/api.md with the reference as it should be.

    Raises:
        ValueError: the text has not the two lines that the reference is between.
    """
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"docs/api.md must have the lines {_BEGIN.strip()} and {_END.strip()}")
    return before + begin + reference() + end + after


def _row(operation: Operation) -> str:
    what = f"{operation.summary}. {operation.description}" if operation.description else operation.summary
    cells = (f"`{_call(operation)}`", what, "; ".join(_request(operation)), " ".join(_responses(operation)))
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |\n"


def _call(operation: Operation) -> str:
    path = re.sub(r"\{(\w+)\}", lambda name: name[1].upper(), operation.path)
    return f"{operation.method} {path}"


def _request(operation: Operation) -> Iterator[str]:
    """Yields what a request has."""
    if access := _ACCESS[operation.access]:
        yield access.format(scope=f" with the scope `{operation.scope}`" if operation.scope else "")
    is_link = "link" in operation.access
    for kind, type_ in (("query", operation.query), ("header", operation.headers)):
        names = [name for name in _names(type_) if not (is_link and name == "token")] if type_ else []
        if names:
            yield f"{kind} {', '.join(f'`{name}`' for name in names)}"
    for kind, type_ in (operation.body.content if operation.body else {}).items():
        yield f"JSON {_content(kind, type_)}" if kind == JSON else _content(kind, type_)


def _responses(operation: Operation) -> Iterator[str]:
    """Yields the responses of the operation, without the problems that others have, too."""
    for answer in operation.answers:
        body = f" {_content(JSON, answer.type)}" if answer.type is not None else ""
        yield f"**{answer.status}**{body} {answer.meaning}"
    for status, meaning in sorted(operation.problems.items()):
        yield f"**{status}** {meaning}"


def _content(kind: str, type_: Any) -> str:
    names = _names(type_)
    if kind == JSON:
        return "`{" + ", ".join(f'"{name}"' for name in names) + "}`"
    if names:
        return f"{'a form' if kind == FORM else f'`{kind}`'} with {', '.join(f'`{name}`' for name in names)}"
    return f"`{kind}`"


def _names(type_: Any) -> list[str]:
    """Returns the names of the fields of a struct; none of any other type."""
    is_struct = isinstance(type_, type) and issubclass(type_, Struct)
    return [each.encode_name for each in structs.fields(type_)] if is_struct else []


def main(file: Path = FILE) -> None:
    """Rewrites the reference."""
    file.write_text(updated(file.read_text()))


if __name__ == "__main__":
    main()
