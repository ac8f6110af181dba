"""Finds which deployed function reads which variable, from the code that its target refers to.

What a module has the server do before it serves, or before the first request, counts for each function whose target
refers to something of that module.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.support.paths import ROOT

#: What has the server call a function: the code that a module registers this way has this name.
_REGISTRATIONS = {"before_serving", "before_first_request"}
_REGISTERED = "<registered>"
#: A variable's name.
VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")


class Name(NamedTuple):
    """Something that a module defines: a function, a class, a constant; a method as ``Class.method``."""

    module: str
    name: str


def read_in(tree: ast.AST) -> Iterator[str]:
    """Yields the variables that code reads: environ["NAME"], environ.get("NAME", ...), helper(environ, "NAME", ...)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
            candidates: list[ast.expr] = [node.slice]
        elif isinstance(node, ast.Call) and any(
            ast.unparse(part).endswith(("environ", "environ.get")) for part in (node.func, *node.args)
        ):
            candidates = node.args[:2]
        else:
            continue
        for candidate in candidates:
            if isinstance(candidate, ast.Constant) and VARIABLE.fullmatch(str(candidate.value)):
                yield str(candidate.value)


def read_from(file: str, target: str) -> set[str]:
    """Returns the variables that a function of a file reads, and everything that it refers to, directly or not."""
    found: set[str] = set()
    waiting = [Name(file.removesuffix(".py").replace("/", "."), target)]
    seen = {*waiting}
    while waiting:
        name = waiting.pop()
        module = _module(name.module)
        for node in module.defined.get(name.name, ()):
            found |= {*read_in(node)}
            new = {*module.referred(node, name.name)}
            new = {*new, *(Name(each.module, _REGISTERED) for each in new)} - seen
            seen |= new
            waiting += new
    return found


class _Module:
    """The names of a module: those that it defines, and what the others stand for.

    Attributes:
        defined: the code of each name.
    """

    def __init__(self, name: str, tree: ast.Module) -> None:
        self._name = name
        self._imported: dict[str, str] = {}
        self.defined: dict[str, list[ast.AST]] = {_REGISTERED: [*_registered(tree)]}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                self._imported |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
            elif isinstance(node, ast.Import):
                self._imported |= {each.asname or each.name: each.name for each in node.names}
        for statement in tree.body:
            self._define(statement)

    def _define(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.FunctionDef):
            self.defined[statement.name] = [statement]
        elif isinstance(statement, ast.ClassDef):
            methods = [each for each in statement.body if isinstance(each, ast.FunctionDef)]
            self.defined |= {f"{statement.name}.{each.name}": [each] for each in methods}
            # Whoever refers to a class may have an instance; its class methods, such as from_environ, are named.
            own = [each for each in methods if not any(ast.unparse(by) == "classmethod" for by in each.decorator_list)]
            self.defined[statement.name] = [*statement.bases, *own]
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            self.defined |= {ast.unparse(target): [statement.value] for target in targets}

    def referred(self, code: ast.AST, within: str) -> Iterator[Name]:
        """Yields the names of ours that code refers to; ``within`` is its own."""
        for node in ast.walk(code):
            if isinstance(node, ast.Name):
                yield from self._resolved(node.id)
            elif isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                if text.startswith(("self.", "cls.")):
                    yield Name(self._name, f"{within.partition('.')[0]}.{node.attr}")
                else:
                    yield from self._resolved(text)

    def _resolved(self, text: str) -> Iterator[Name]:
        first, _, rest = text.partition(".")
        if first not in self._imported:
            yield Name(self._name, text)
            return
        full = f"{self._imported[first]}.{rest}".removesuffix(".")
        parts = full.split(".")
        for end in range(len(parts) - 1, 0, -1):
            if _path(".".join(parts[:end])) is not None:
                yield Name(".".join(parts[:end]), ".".join(parts[end:]))
                return


def _registered(tree: ast.Module) -> Iterator[ast.AST]:
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            if any(ast.unparse(by) in _REGISTRATIONS for by in statement.decorator_list):
                yield statement
        elif (
            isinstance(statement, ast.Expr)
            and isinstance(call := statement.value, ast.Call)
            and ast.unparse(call.func) in _REGISTRATIONS
        ):
            yield from call.args


@cache
def _path(module: str) -> Path | None:
    base = ROOT / module.replace(".", "/")
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@cache
def _module(name: str) -> _Module:
    path = _path(name)
    return _Module(name, ast.parse(path.read_text() if path else ""))
