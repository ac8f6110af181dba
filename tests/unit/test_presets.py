"""The presets of an installation."""

import json
import re

import pytest

from functions.options import VBR_BITRATES, Options
from functions.presets import BUILT_IN, of_installation
from functions.settings import BadSetting
from tests.support.paths import ROOT


def test_built_in_presets_are_valid() -> None:
    for options in BUILT_IN.values():
        assert Options.from_form(options) != Options()


def test_page_has_the_built_in_presets() -> None:
    source = (ROOT / "functions/gateway/site/src/options.ts").read_text()
    table = source.partition("export const PRESETS = {")[2].partition("} satisfies")[0]
    found = {}
    for name, bitrate, mono, normalize in re.findall(
        r"(\w+): \{ bitrate: (\d+), isMono: (true|false), isNormalized: (true|false) \}", table
    ):
        flags = {"mono": mono, "normalize": normalize}
        found[name] = {"bitrate": f"{bitrate}k", **{flag: value for flag, value in flags.items() if value == "true"}}
    assert found == BUILT_IN


def test_page_has_the_bit_rates_of_variable_ones() -> None:
    source = (ROOT / "functions/gateway/site/src/options.ts").read_text()
    (table,) = re.findall(r"const VBR_BITRATES = \[(.*)\];", source)
    assert tuple(map(int, table.split(", "))) == VBR_BITRATES


def test_installation_adds_replaces_and_removes() -> None:
    added = {"podcast": {"bitrate": "96k", "volume": ""}, "best": {"vbr": "0"}, "smallest": None, "unknown": None}
    assert of_installation({"PRESETS": json.dumps(added)}) == {
        "standard": BUILT_IN["standard"],
        "speech": BUILT_IN["speech"],
        "music": BUILT_IN["music"],
        "best": {"vbr": "0"},
        "podcast": {"bitrate": "96k"},
    }
    composed, decomposed = "\xc4ther", "A\u0308ther"
    assert [*of_installation({"PRESETS": json.dumps({decomposed: {}})})][-1] == composed, "as users' names are compared"
    assert of_installation({"PRESETS": json.dumps({composed: {}, decomposed: None})}) == BUILT_IN
    assert of_installation({"PRESETS": ""}) == of_installation({}) == BUILT_IN


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "PRESETS is not JSON"),
        ("[]", "PRESETS is not a JSON object"),
        ('{"a/b": {}}', "PRESETS has the name 'a/b'"),
        ('{"a": {"bitrate": 96}}', "PRESETS does not say the options of a as texts"),
        ('{"a": {"bitrate": "97k"}}', "PRESETS has an invalid option in a: bitrate must be one of"),
        ('{"a": {"preset": "b"}}', "PRESETS has an invalid option in a: Unknown option preset"),
    ],
)
def test_invalid_setting_is_explained(text: str, message: str) -> None:
    with pytest.raises(BadSetting, match=message):
        of_installation({"PRESETS": text})
