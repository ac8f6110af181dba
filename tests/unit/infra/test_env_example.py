"""infra/env.example lists every variable that the code reads, and no other."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from functions.settings import OUTDATED
from tests.support.paths import ROOT
from tests.support.variables import VARIABLE, read_in

#: Variables of the operating system, not ours.
SYSTEM = {"PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR"}
#: What infra/cronjob/overview.yaml sets.
OVERVIEW = {"RABBITMQ_URL", "NAMESPACE"}


def sources() -> Iterator[Path]:
    for package in ("events", "functions", "infra"):
        yield from (ROOT / package).rglob("*.py")


def documented() -> list[str]:
    return re.findall(rf"^#?({VARIABLE.pattern})=", (ROOT / "infra/env.example").read_text(), re.MULTILINE)


def test_example_lists_every_variable_the_code_reads() -> None:
    names = {each[0] for each in documented()}
    read = {name for path in sources() for name in read_in(ast.parse(path.read_text()))}

    assert len(read) > 30, "the search for variables finds hardly any"
    assert read - SYSTEM - OVERVIEW - names == set()


def test_example_lists_no_unused_variable() -> None:
    code = "\n".join(path.read_text() for path in sources())
    names = [each[0] for each in documented()]

    assert [name for name in names if f'"{name}"' not in code] == []
    assert sorted(names) == sorted(set(names)), "a variable is listed twice"
    assert not set(names) & set(OUTDATED)


def test_every_variable_has_a_comment() -> None:
    lines = (ROOT / "infra/env.example").read_text().splitlines()
    for above, line in itertools.pairwise(lines):
        if re.match(rf"#{VARIABLE.pattern}=", line):
            assert above.startswith("# "), line
