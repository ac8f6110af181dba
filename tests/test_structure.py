"""Enforces the rules of CONTRIBUTING.md that a test can check."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from events.schema import EVENTS
from tests.support.paths import ROOT

FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/main.py"))
MODULES = sorted(
    path for folder in ("client", "events", "functions", "infra") for path in (ROOT / folder).rglob("*.py")
)
EVERYTHING = [*MODULES, *sorted(path for folder in ("scripts", "tests") for path in (ROOT / folder).rglob("*.py"))]
#: The only code that runs in the sandbox.
CHILD = "functions.convert.demux.child"
#: What the sandboxed code imports from the rest of the project. Everything here is within reach of a hostile file.
CHILD_MAY_IMPORT = {
    "functions.mp3.chapters",
    "functions.convert.demux.protocol",
    "functions.convert.errors",
    "functions.convert.gaps",
    "functions.mp3.frame",
    "functions.convert.sandbox.limits",
    "functions.convert.sandbox.seccomp",
    "functions.convert.seek.numbering",
    "functions.convert.seek.packets",
    "functions.convert.seek.recipe",
    "functions.convert.track_list",
}
#: What the command line shares with the server: the options, and the converter for --local.
CLIENT_MAY_IMPORT = (
    "events.errors",
    "functions.options",
    "functions.presets",
    "functions.mp3.names",
    "functions.convert.__main__",
    "functions.convert.cpus",
)
#: The layers, lowest first. A module imports from its own folder and from lower layers; deployables are above all of
#: them. Files of one layer do not import each other.
LAYERS = (
    ("events",),
    (
        "functions.code_pages",
        "functions.email_address",
        "functions.file_names",
        "functions.networks",
        "functions.operation",
        "functions.options",
        "functions.rate_limits",
        "functions.progress",
        "functions.push",
        "functions.settings",
        "functions.sniff",
        "functions.waveform",
        "functions.warm_up",
    ),
    ("functions.mp3", "functions.presets", "functions.security_log", "functions.shares"),
    ("functions.media",),
    ("functions.state",),
    ("functions.auth",),
    ("functions.event_endpoint", "functions.http_endpoint"),
    ("functions.file_checks", "functions.outgoing", "functions.pages"),
)
#: CPU milliseconds that the import of a function may take beyond functions-framework, mostly for libraries.
IMPORT_CEILINGS = dict.fromkeys(FUNCTIONS, 450) | {"validate": 100}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def manifests() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted((ROOT / "knative").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path, document


def services() -> dict[str, dict[str, Any]]:
    return {
        document["metadata"]["name"]: document
        for _, document in manifests()
        if document["kind"] == "Service" and document["apiVersion"].startswith("serving.knative.dev/")
    }


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_who_identifies_users_prepares_to_before_the_first_request(path: Path) -> None:
    identifies = "functions.http_endpoint.identify" in imports(path)
    assert ("\nbefore_first_request(prepare_to_identify)\n" in path.read_text()) is identifies


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    module = name_of(path)
    folder = module.split(".")[0]
    own = next((name for name in FUNCTIONS if module.startswith(f"functions.{name}.")), None)
    for imported in imports(path):
        if folder == "events":
            assert not imported.startswith(("functions", "infra")), f"{module} imports {imported}"
        if folder == "client":
            assert imported.startswith(CLIENT_MAY_IMPORT) or not imported.startswith(
                ("events.", "functions.", "infra")
            ), f"{module} imports {imported}"
        else:
            assert not imported.startswith("client"), f"{module} imports {imported}"
        if folder == "functions":
            assert not imported.startswith("infra"), f"{module} imports {imported}"
            other = next((name for name in FUNCTIONS if imported.startswith(f"functions.{name}.")), own)
            assert other == own, f"{module} imports {imported}, which is another function's"


def layer_of(module: str) -> tuple[int, str]:
    """Returns the number of the module's layer, and the file or folder in it that the module belongs to."""
    for number, layer in enumerate(LAYERS):
        for part in layer:
            if module == part or module.startswith(f"{part}."):
                return number, part
    return len(LAYERS), module


@pytest.mark.parametrize("path", [path for path in MODULES if layer_of(name_of(path))[0] < len(LAYERS)], ids=name_of)
def test_libraries_import_only_lower_layers(path: Path) -> None:
    number, part = layer_of(name_of(path))
    files = {name_of(module) for module in MODULES}
    for imported in files.intersection(imports(path)):
        other_number, other_part = layer_of(imported)
        allowed = other_part == part or other_number < number or imported == "functions"
        assert allowed, f"{name_of(path)} imports {imported}, which is not in a lower layer"


def test_every_library_has_a_layer() -> None:
    deployables = tuple(f"functions.{name}." for name in FUNCTIONS)
    for module in (name_of(path) for path in MODULES if path.is_relative_to(ROOT / "functions")):
        in_layer = layer_of(module)[0] < len(LAYERS)
        assert in_layer or module == "functions" or f"{module}.".startswith(deployables), f"{module} has no layer"


def test_no_import_circle() -> None:
    """Imports inside functions count too: they postpone a circle, they do not remove it."""
    imported = {name_of(path): {name for name in imports(path) if name != name_of(path)} for path in EVERYTHING}
    graph = {module: sorted(names & imported.keys()) for module, names in imported.items()}
    assert not (found := circle(graph)), " -> ".join(found)


def circle(graph: dict[str, list[str]]) -> list[str]:
    """Returns the modules of one import circle, the first repeated at the end; empty if there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for imported in graph[module]:
            if found := visit(imported, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in graph if (found := visit(module, []))), [])


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_trusted_code_imports_nothing_from_the_sandboxed(path: Path) -> None:
    """What runs in the sandbox handles hostile bytes. The rest of the code shares only its protocol with it."""
    if not name_of(path).startswith(CHILD):
        for imported in imports(path):
            assert not imported.startswith(CHILD), f"{name_of(path)} imports {imported}"


def test_only_the_demux_package_talks_to_the_demux_child() -> None:
    client = "functions.convert.demux.client"
    assert {name_of(path) for path in MODULES if client in imports(path)} == {"functions.convert.demux.track"}


def test_sandboxed_code_imports_only_what_it_needs() -> None:
    files = {name_of(path) for path in MODULES if path.name != "__init__.py"}
    imported = {name for path in MODULES if name_of(path).startswith(CHILD) for name in imports(path)}
    assert {name for name in imported & files if not name.startswith(CHILD)} == CHILD_MAY_IMPORT


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_has_a_meaningless_name(path: Path) -> None:
    assert not {"common", "shared", "utils", "helpers"} & set(name_of(path).split("."))


def test_an_import_needs_no_server_and_no_variable() -> None:
    """Every function imports in an empty environment, without a connection."""
    for name in FUNCTIONS:
        run_python(f"import functions.{name}.main")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_a_manifest_and_an_extra(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert name in project["optional-dependencies"]
    assert name in services(), f"knative/{name}.yaml has no Service {name}"
    first = next(document for path, document in manifests() if path.stem == name)
    assert (first["kind"], first["metadata"]["name"]) == ("Service", name)


def test_every_event_has_a_trigger() -> None:
    triggered = {
        document["spec"]["filter"]["attributes"]["type"] for _, document in manifests() if document["kind"] == "Trigger"
    }
    emitted = {type_ for type_ in EVENTS if _is_emitted(type_)}
    assert triggered == emitted


def _is_emitted(type_: str) -> bool:
    """Returns whether a function creates this event. The outbox and sweep only repeat events that others created."""
    repeating = {"functions.state.outbox", "functions.state.overdue", "functions.sweep.main"}
    sources = [path for path in MODULES if name_of(path) not in repeating and name_of(path).startswith("functions.")]
    return any(re.search(rf"\b{EVENTS[type_].__name__}\(\w", path.read_text()) for path in sources)


def test_every_service_names_an_existing_function() -> None:
    for name, service in services().items():
        (container,) = service["spec"]["template"]["spec"]["containers"]
        env = {variable["name"]: variable.get("value") for variable in container["env"]}
        source = (ROOT / env["FUNCTION_SOURCE"]).read_text()
        assert re.search(rf"^def {env['FUNCTION_TARGET']}\(", source, re.MULTILINE), name


def test_no_two_services_claim_a_path() -> None:
    claimed = [
        path.strip()
        for service in services().values()
        for path in service["metadata"].get("annotations", {}).get("mp3burst.dev/paths", "").split(",")
        if path.strip()
    ]
    assert len(claimed) == len(set(claimed))
    assert {"/register", "/login", "/validate", "/upload", "/jobs", "/download"} <= set(claimed)


def run_python(code: str) -> str:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", code], env=environ, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", FUNCTIONS)
def test_importing_a_function_is_cheap(name: str) -> None:
    """Cold start is what a user of an idle system waits for. The CPU time of the fastest of three imports counts."""
    code = (
        "import functions_framework, time; begin = time.process_time(); "
        f"import functions.{name}.main; print((time.process_time() - begin) * 1000)"
    )
    costs: list[float] = []
    while len(costs) < 3 and not any(cost <= IMPORT_CEILINGS[name] for cost in costs):
        costs.append(float(run_python(code)))
    assert min(costs) <= IMPORT_CEILINGS[name], f"importing {name} costs {min(costs):.0f} ms"


@pytest.mark.parametrize(
    "name",
    ["login", "register", "confirm", "account", "validate", "status", "download", "upload", "edit", "admin", "metrics"],
)
def test_heavy_libraries_stay_out_of_http_functions(name: str) -> None:
    loaded = run_python(f"import functions.{name}.main, sys; print(*sys.modules)").split()
    assert not {"moviepy", "sendgrid", "numpy", "av", "alembic", "aiohttp", "PIL"} & set(loaded)
