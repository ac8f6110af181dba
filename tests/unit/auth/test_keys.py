"""The form of API keys, and the setting with the keys of operators."""

import re
import zlib

import pytest

from functions.auth.keys import KnownKey, is_well_formed, new_key, operator_keys
from functions.auth.stored_secrets import digest
from functions.settings import BadSetting

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_key_has_a_prefix_and_a_checksum_that_scanners_can_verify() -> None:
    keys = {new_key() for _ in range(200)}
    assert len(keys) == 200
    for key in keys:
        found = re.fullmatch(r"mp3b_([0-9A-Za-z]{30})([0-9A-Za-z]{6})", key)
        assert found
        number = 0
        for digit in found[2]:
            number = number * 62 + DIGITS.index(digit)
        assert number == zlib.crc32(found[1].encode())
        assert is_well_formed(key)


def test_every_mistyped_character_is_found() -> None:
    key = new_key()
    for n in range(len("mp3b_"), len(key)):
        wrong = key[:n] + ("a" if key[n] != "a" else "b") + key[n + 1 :]
        assert not is_well_formed(wrong)


def test_keys_of_operators() -> None:
    key = digest(new_key())
    assert operator_keys({}) == operator_keys({"API_KEYS": " "}) == {}
    found = operator_keys({"API_KEYS": f"{key}:{'a' * 32}:upload+read\n{'0' * 64}:{'b' * 32}:read,"})
    assert found[key] == KnownKey(key[:32], "a" * 32, frozenset({"upload", "read"}))  # type: ignore[arg-type]
    assert len(found) == 2


@pytest.mark.parametrize(
    "entry",
    ["x", new_key(), f"{'0' * 64}:ann:read", f"{'0' * 64}:{'a' * 32}:", f"{'0' * 64}:{'a' * 32}:write"],
    ids=["text", "key", "username", "no scope", "unknown scope"],
)
def test_malformed_keys_of_operators_are_refused(entry: str) -> None:
    with pytest.raises(BadSetting, match="API_KEYS must be") as refused:
        operator_keys({"API_KEYS": entry})
    assert entry not in str(refused.value), "it may be the key itself"
