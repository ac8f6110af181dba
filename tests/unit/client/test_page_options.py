"""The times that the page accepts are those that the server accepts."""

import json
from pathlib import Path
from typing import Any, Final

import pytest

from functions.options import BadOption, Options
from tests.support import page_code

_EDITS: Final[tuple[dict[str, float], ...]] = (
    {"start": 1, "end": 4, "fadeIn": 1, "fadeOut": 2},
    {"start": 1, "end": 4, "fadeIn": 1, "fadeOut": 2.1},
    {"end": 4, "fadeIn": 4.5},
    {"start": 4, "end": 4},
    {"start": 0.1, "end": 0.4, "fadeIn": 0.3},
    {"start": 0.4, "end": 0.7, "fadeIn": 0.3},
    {"end": 9000, "fadeIn": 3600},
    {"end": 9000, "fadeOut": 3600.5},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    page_code.bundle('export * as options from "./src/options";', folder / "page.mjs")
    return folder


def run(code: str, folder: Path) -> Any:
    """Returns the value of the code's ``result``."""
    start = 'const { options } = await import("./page.mjs");\n'
    (answer,) = page_code.answers(f"{start}{code}\nserver.answers = [JSON.stringify(result)]; end();", folder)
    return json.loads(answer)


def is_accepted(form: dict[str, str]) -> bool:
    try:
        Options.from_form(form)
    except BadOption:
        return False
    return True


def test_times_are_refused_that_the_server_refuses(folder: Path) -> None:
    code = f"""
const edits = {json.dumps(_EDITS)}.map((each) => ({{ ...options.unedited(options.PRESETS.standard), ...each }}));
const result = edits.map((edit) => [options.toOptions(edit), options.areTimesValid(edit, null)]);
"""
    found = run(code, folder)
    assert {valid for _, valid in found} == {True, False}
    assert [valid for _, valid in found] == [is_accepted(form) for form, _ in found]


def test_fades_that_do_not_fit_into_the_file_are_refused(folder: Path) -> None:
    code = """
const edit = { ...options.unedited(options.PRESETS.standard), fadeIn: 2, fadeOut: 1 };
const result = [3, 2.5].map((duration) => options.areTimesValid(edit, duration));
"""
    assert run(code, folder) == [True, False]


def test_fades_shrink_with_the_selection(folder: Path) -> None:
    code = """
const fades = { fadeIn: 2, fadeOut: 1 };
const result = [3, 1.5, 1].map((length) => Object.values(options.fittedFades(fades, length)));
"""
    assert run(code, folder) == [[2, 1], [1, 0.5], [0.666, 0.333]]
