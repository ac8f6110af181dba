"""Compares the documents with the code, in both directions."""

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path

import click
import pytest

from client.cli import mp3burst
from events.errors import Mp3burstError
from events.schema import EVENTS
from functions.mp3 import id3
from functions.options import BITRATES, Options
from functions.settings import OUTDATED
from functions.state.schema import metadata
from infra.apidocs import reference
from infra.config import VARIABLES
from infra.migrations.rights import RIGHTS
from tests.support.paths import ROOT
from tests.support.variables import read_from, read_in
from tests.test_structure import FUNCTIONS, manifests, name_of, services
from tests.unit.infra.test_env_example import documented, sources

#: Folders that are not part of the repository, or that tools make.
_FOREIGN = {".git", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache", "__pycache__", "data", "node_modules"}


def files(folder: Path = ROOT) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in _FOREIGN:
            yield from files(path)
        elif path.is_file():
            yield path


DOCUMENTS = [path for path in files() if path.suffix == ".md"]
CODE = sorted(
    path for house in ("client", "events", "functions", "infra", "scripts") for path in (ROOT / house).rglob("*.py")
)
#: Commands that pass their flags on to other programs, or describe them behind the command's name.
PASSING_ON = {"test", "check"}
#: Folders whose files are named by their path from the top of the repository.
_HOUSES = "client|events|functions|infra|knative|scripts|tests|docs"
#: `path`, `path:Class.method` or `path::test`.
_PATH = re.compile(rf"`((?:{_HOUSES})/[A-Za-z0-9_./-]*)(?:(::?)([A-Za-z_][A-Za-z0-9_.]*))?`")
_FLAG = re.compile(r"(?<![\w-])(--[a-z][a-z-]*)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CAMEL = re.compile(r"`([A-Z][a-z0-9]+(?:[A-Z][a-z0-9]*)+)`")
_VARIABLE = re.compile(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]*[A-Z0-9])`")

#: The requirements of levels 1 and 2 of ASVS 5.0.0, from its CSV file.
_ASVS = (
    "1.1.1-2 1.2.1-9 1.3.1-11 1.4.1-3 1.5.1-2 2.1.1-3 2.2.1-3 2.3.1-4 2.4.1 3.2.1-2 3.3.1-4 3.4.1-6 3.5.1-5 3.7.1-2 "
    "4.1.1-3 4.2.1 4.3.1-2 4.4.1-4 5.1.1 5.2.1-3 5.3.1-2 5.4.1-3 6.1.1-3 6.2.1-12 6.3.1-4 6.4.1-4 6.5.1-5 6.6.1-3 "
    "6.8.1-4 7.1.1-3 7.2.1-4 7.3.1-2 7.4.1-5 7.5.1-2 7.6.1-2 8.1.1-2 8.2.1-3 8.3.1 8.4.1 9.1.1-3 9.2.1-4 10.1.1-2 "
    "10.2.1-2 10.3.1-4 10.4.1-11 10.5.1-5 10.6.1-2 10.7.1-3 11.1.1-2 11.2.1-3 11.3.1-3 11.4.1-4 11.5.1 11.6.1 "
    "12.1.1-3 12.2.1-2 12.3.1-4 13.1.1 13.2.1-5 13.3.1-2 13.4.1-5 14.1.1-2 14.2.1-4 14.3.1-3 15.1.1-3 15.2.1-3 "
    "15.3.1-7 16.1.1 16.2.1-5 16.3.1-4 16.4.1-3 16.5.1-3 17.1.1 17.2.1-4 17.3.1-2 "
)


def identifier(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=identifier)


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def section(text: str, heading: str) -> str:
    """Returns the text below a heading, up to the next one of its level or above."""
    level = heading.split(" ")[0]
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no heading {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Returns the cells of every table row except headings and rulers."""
    lines = [line.strip() for line in text.splitlines()]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    rulers = [number for number, row in enumerate(cells) if set("".join(row)) <= set("-| ")]
    skipped = {number for ruler in rulers for number in (ruler, ruler - 1)}
    return [row for number, row in enumerate(cells) if number not in skipped]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def first_column(text: str) -> list[str]:
    return [name for row in rows(text) for name in quoted(row[0])]


def test_the_documents_are_found() -> None:
    assert len(DOCUMENTS) > 20
    assert ROOT / "README.md" in DOCUMENTS


# Tables and columns


def test_every_table_is_described() -> None:
    described = re.findall(r"^### `(\w+)`$", section(text_of("docs/state.md"), "## Tables"), re.MULTILINE)
    assert sorted(described) == sorted(metadata.tables)


@pytest.mark.parametrize("table", sorted(metadata.tables))
def test_every_column_is_described(table: str) -> None:
    described = first_column(section(text_of("docs/state.md"), f"### `{table}`"))
    assert sorted(described) == sorted(column.name for column in metadata.tables[table].columns)


@pytest.mark.parametrize("table", ["jobs", "pieces", "mails", "deliveries", "uploads"])
def test_the_diagram_of_a_table_has_its_states(table: str) -> None:
    text = text_of("docs/state.md")
    columns = rows(section(text, f"### `{table}`"))
    states = set(quoted(next(row[1] for row in columns if row[0] == "`state`")))
    diagram = section(text, f"## {table.capitalize()}")
    drawn = set(re.findall(r"^    (\w+) -->", diagram, re.MULTILINE)) | set(re.findall(r"--> (\w+)", diagram))
    assert drawn == states
    code = "\n".join(path.read_text() for path in (ROOT / "functions").rglob("*.py"))
    assert {state for state in states if f'"{state}"' not in code} == set()


# Formats


def test_every_tag_is_described_with_the_fields_that_it_is_made_from() -> None:
    described = {quoted(row[0])[0]: quoted(row[2]) for row in rows(section(text_of("docs/formats.md"), "## Tags"))}
    expected = {frame: [*names, *id3.TOTALS.get(frame, ())] for frame, names in id3.TEXT_FRAMES.items()}
    expected |= {f"TXXX:{description}": [name] for name, description in id3.USER_FRAMES.items()}
    expected[f"UFID:{id3.RECORDING_OWNER}"] = [id3.RECORDING]
    assert described == expected


# Events, functions and calls


def test_every_event_is_described_with_the_function_that_handles_it() -> None:
    handled: dict[str, str] = {}
    for _, document in manifests():
        if document["kind"] == "Trigger":
            handled[document["spec"]["filter"]["attributes"]["type"]] = document["spec"]["subscriber"]["ref"]["name"]
    described = {quoted(row[0])[0]: row[2] for row in rows(section(text_of("docs/api.md"), "## Events"))}
    assert described == {type_: handled[type_] for type_ in EVENTS}


@every_document
def test_no_document_names_an_event_that_does_not_exist(document: Path) -> None:
    named = set(re.findall(r"`(dev\.mp3burst\.[a-z0-9]+\.[a-z]+)`", document.read_text()))
    assert named <= EVENTS.keys()


def test_every_function_is_described() -> None:
    described = [row[0] for row in rows(section(text_of("functions/README.md"), "## Functions"))]
    assert sorted(described) == sorted(services())
    assert set(FUNCTIONS) <= set(described)


def test_every_right_is_described() -> None:
    text = section(text_of("docs/architecture.md"), "## Database rights")
    named = quoted(next(line for line in text.splitlines() if line.startswith("| function ")))
    described = {
        row[0]: {table: rights for table, rights in zip(named, row[1:], strict=True) if rights != "-"}
        for row in rows(text)
    }
    assert sorted(named) == sorted(metadata.tables)
    assert described == RIGHTS


def test_everything_in_functions_is_described() -> None:
    inside = {path for path in (ROOT / "functions").iterdir() if not path.name.startswith(("_", "."))}
    inside.discard(ROOT / "functions/README.md")
    text = text_of("functions/README.md")
    assert [path.name for path in sorted(inside) if f"[{path.name}{'/' * path.is_dir()}](" not in text] == []


def test_every_path_that_a_function_serves_is_described() -> None:
    annotations = [service["metadata"].get("annotations", {}) for service in services().values()]
    served = {path.strip() for each in annotations for path in each.get("mp3burst.dev/paths", "").split(",")} - {""}
    calls = "".join(row[0] for row in rows(section(text_of("docs/api.md"), "## Calls")))
    served = {path.replace("*", "JOB") for path in served}
    assert {path for path in served if path not in calls} == set()
    named = {path for path in re.findall(r"(/[a-z.][a-z./-]*[a-z])", calls) if path.startswith(tuple(served))}
    below = tuple(f"{path}/" for path in served)
    only_below = {"/admin"}
    expected = {path for path in served if path.islower()} - only_below
    assert {path for path in named if not path.startswith(below)} == expected


def test_every_call_is_described_as_it_is_declared() -> None:
    text = text_of("docs/api.md")
    assert text == reference.updated(text), "run python -m infra.apidocs.reference"


# Security


def requirements(text: str) -> list[str]:
    """Returns the numbers of requirements in a text, with ranges such as 1.2.3-5 written out."""
    return [
        f"{section}.{number}"
        for section, first, last in re.findall(r"\b(\d+\.\d+)\.(\d+)(?:-(\d+))?", text)
        for number in range(int(first), int(last or first) + 1)
    ]


def test_every_requirement_of_asvs_is_assessed_once() -> None:
    table = rows(text_of("docs/asvs.md"))
    assessed = [number for row in table for number in requirements(row[0])]
    chapters = tuple(f"{number}." for row in table for number in re.findall(r"all of chapter (\d+)", row[0]))
    expected = [number for number in requirements(_ASVS) if not number.startswith(chapters)]
    assert sorted(assessed) == sorted(expected)
    assert {row[2] for row in table if len(row) == 4} == {"yes", "in part", "no"}


# Settings, options, errors, commands


def test_every_variable_is_described_once() -> None:
    described = [name for name in first_column(text_of("docs/settings.md")) if name.isupper()]
    assert sorted(described) == sorted(set(described)), "a variable is described twice"
    assert sorted(described) == sorted({each[0] for each in documented()})


def test_every_variable_that_the_code_reads_is_described() -> None:
    text = text_of("docs/settings.md")
    read = {name for path in sources() for name in read_in(ast.parse(path.read_text()))}
    system = {"PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR"}
    assert len(read) > 30, "the search for variables finds none"
    assert {name for name in read - system - set(OUTDATED) if f"`{name}`" not in text} == set()


def readers() -> dict[str, set[str]]:
    """Returns the functions that read each variable: their manifest passes it on, and their code names it."""
    found: dict[str, set[str]] = {}
    for name, service in services().items():
        (container,) = service["spec"]["template"]["spec"]["containers"]
        code = {each["name"]: each["value"] for each in container["env"] if "FUNCTION" in each["name"]}
        if not code:  # the gateway is nginx
            continue
        refs = [each.get("configMapRef") or each["secretRef"] for each in container["envFrom"]]
        given = {variable for ref in refs for variable in VARIABLES[ref["name"]].split()}
        for variable in given & read_from(code["FUNCTION_SOURCE"], code["FUNCTION_TARGET"]):
            found.setdefault(variable, set()).add(name)
    return found


def test_settings_say_which_functions_read_them() -> None:
    described: dict[str, set[str]] = {}
    for part in re.split(r"^## ", text_of("docs/settings.md"), flags=re.MULTILINE):
        of_all = re.search(r"(?:^|\. )([a-z, ]+) reads? them\.$", part, re.MULTILINE)
        for table in tables(part):
            heading, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
            for row in lines:
                by = row[heading.index("read by")] if "read by" in heading else of_all[1] if of_all else ""
                if by:
                    described |= {name: {*re.split(", | and ", by)} for name in quoted(row[0])}
    assert len(described) > 40
    read = readers()
    assert described == {variable: read.get(variable, set()) for variable in described}


@cache
def everything_but_documents() -> str:
    skipped = {".md", ".lock", ".png"}
    paths = [path for path in files() if path.suffix not in skipped and path != Path(__file__)]
    return "\n".join(path.read_text(errors="replace") for path in paths)


@every_document
def test_variables_that_a_document_names_exist(document: Path) -> None:
    named = set(_VARIABLE.findall(document.read_text()))
    assert {name for name in named if not re.search(rf"\b{name}\b", everything_but_documents())} == set()


def test_every_option_is_described() -> None:
    table = text_of("docs/options.md").partition("\n## ")[0]
    assert sorted(first_column(table)) == sorted(field.name for field in fields(Options))
    assert re.findall(r"(\d+)k\b", next(row[1] for row in rows(table) if row[0] == "`bitrate`")) == [
        str(rate) for rate in BITRATES
    ]


def errors() -> dict[str, int]:
    """Returns the status of every error class, by name."""
    for path in CODE:
        if re.search(r"^class \w+\(\w*(Error|TryAgain|BadRequest|No\w+|BadSetting)\)", path.read_text(), re.MULTILINE):
            import_module(name_of(path))
    found: dict[str, int] = {}
    waiting: list[type[Mp3burstError]] = [Mp3burstError]
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        if error.__module__.partition(".")[0] != "tests":
            found[error.__name__] = error.status
    return found


def defined_errors() -> set[str]:
    """Returns the names of all error classes, from the source: importing modules could miss some."""
    bases = {
        node.name: {ast.unparse(base) for base in node.bases}
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    names = {"Mp3burstError"}
    while more := {name for name, parents in bases.items() if parents & names} - names:
        names |= more
    return names


def test_every_error_is_described_with_its_status() -> None:
    described = {quoted(row[0])[0]: int(row[1]) for row in rows(text_of("docs/errors.md"))}
    assert set(described) == defined_errors()
    assert described == errors()


def test_every_command_is_described() -> None:
    commands = [path.name for path in (ROOT / "scripts").iterdir() if path.is_file() and "." not in path.name]
    described = {name for row in rows(text_of("scripts/README.md")) for name in re.findall(r"scripts/(\w+)", row[0])}
    assert sorted(described) == sorted(set(commands) - {"venv"}), "venv is what the others call"


@cache
def source_of(command: str) -> str:
    """Returns the code of a command in scripts/: the shell script, and the program that it starts."""
    script = text_of(f"scripts/{command}")
    started = re.search(r'exec python (?:-m ([a-z.]+)|"\$root/(\S+)")', script)
    assert started, command
    program = ROOT / (started[2] or started[1].replace(".", "/"))
    paths = [*program.glob("*.py")] if program.is_dir() else [program.with_suffix(".py")]
    return "\n".join([script, *(path.read_text() for path in paths)])


@every_document
def test_commands_that_a_document_names_exist_with_their_flags(document: Path) -> None:
    for command, rest in re.findall(r"\./scripts/(\w+)([^`\n]*)", document.read_text()):
        assert (ROOT / "scripts" / command).is_file(), command
        for flag in _FLAG.findall(rest) if command not in PASSING_ON else ():
            assert f'"{flag}"' in source_of(command), f"{command} {flag}"


@every_document
def test_commands_of_the_client_that_a_document_names_have_their_flags(document: Path) -> None:
    for text in re.findall(r"(?:^    |`)mp3burst( [^`\n|]*)", document.read_text(), re.MULTILINE):
        command: click.Command = mp3burst
        flags = {"--help", "--version"}
        for word in text.split("#")[0].split():
            if isinstance(command, click.Group) and word in command.commands:
                command = command.commands[word]
                flags |= {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
        assert {*_FLAG.findall(text)} <= flags, f"mp3burst{text}"


# Links, paths and names


@every_document
def test_links_lead_somewhere(document: Path) -> None:
    for target in _LINK.findall(document.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = document if not path else (document.parent / path).resolve()
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), target


def anchors(file: Path) -> set[str]:
    """Returns the anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_paths_and_names_that_a_document_names_exist(document: Path) -> None:
    missing = []
    for path, _, name in _PATH.findall(document.read_text()):
        # A placeholder; made by infra/secrets.sh, or by the operator.
        if "NAME" in path or path.startswith("infra/secrets/") or path == "infra/.env":
            continue
        if not (ROOT / path).exists():
            missing.append(path)
        elif name and name not in definitions(ROOT / path):
            missing.append(f"{path}:{name}")
    assert not missing, "\n".join(missing)


@cache
def definitions(path: Path) -> set[str]:
    """Returns the names defined at a module's top level, and the methods of its classes as Class.method."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {ast.unparse(target) for target in node.targets}
        elif isinstance(node, ast.AnnAssign):
            found.add(ast.unparse(node.target))
        if isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            found |= {f"{node.name}.{each.name}" for each in methods}
    return found


@every_document
def test_classes_that_a_document_names_exist(document: Path) -> None:
    named = set(_CAMEL.findall(document.read_text()))
    assert {name for name in named if not re.search(rf"\b{name}\b", everything_but_documents())} == set()


def test_every_document_is_in_an_index() -> None:
    for folder in ("docs", "docs/decisions"):
        index = text_of(f"{folder}/README.md")
        for path in (ROOT / folder).glob("*.md"):
            assert path.name == "README.md" or f"]({path.name})" in index, path


@pytest.mark.parametrize("file", [*DOCUMENTS, *(ROOT / "client").glob("*.py")], ids=identifier)
def test_pip_installs_from_the_repository(file: Path) -> None:
    """PyPI has no package of this name; whoever registered it there would run code on our users' machines."""
    assert not re.search(r"pip install ['\"]?mp3burst(?!\S* @ git\+)", file.read_text())


def test_the_readme_can_be_read_in_two_minutes() -> None:
    assert len(text_of("README.md").splitlines()) < 120


def test_rows_of_a_table_have_as_many_cells_as_its_heading() -> None:
    for document in DOCUMENTS:
        for table in tables(document.read_text()):
            counts = {len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line))) for line in table}
            assert len(counts) == 1, (identifier(document), table[0])


def tables(text: str) -> Iterator[list[str]]:
    for is_table, lines in itertools.groupby(text.splitlines(), lambda line: line.startswith("|")):
        if is_table:
            yield list(lines)
