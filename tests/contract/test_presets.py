"""Presets on every SQL database: a user's own, within a limit, before those that everyone has."""

import pytest
from sqlalchemy import insert

from functions.options import BadOption
from functions.presets import BUILT_IN
from functions.state.database import Database
from functions.state.deleted_users import DeletedUsers
from functions.state.owners import OwnerChanged
from functions.state.presets import MAX_PRESETS, PresetNotFound, Presets, TooManyPresets
from functions.state.schema import UserId, now, presets, users
from tests.contract.test_jobs import at_once

ADA, BOB = (UserId(name * 32) for name in "ab")
MINE = {"bitrate": "112k"}


@pytest.fixture
def table(database: Database) -> Presets:
    rows = [
        {"id": user, "username": user[:1], "role": "user", "created_at": now(), **dict.fromkeys(TEXTS, "-")}
        for user in (ADA, BOB)
    ]
    database.run(lambda connection: [connection.execute(insert(users).values(row)) for row in rows])
    return Presets(database, BUILT_IN)


TEXTS = ("email", "name", "password_hash")


def test_own_preset_hides_the_one_that_everyone_has_until_it_is_deleted(table: Presets) -> None:
    table.put("speech", {"bitrate": "80k"}, ADA)
    table.put("speech", MINE, ADA)
    table.put("Äther ♪", {}, ADA)
    assert [preset.name for preset in table.of(ADA)] == ["speech", "Äther ♪", "standard", "music", "best", "smallest"]
    assert (table.get("speech", ADA).options, table.get("speech", BOB).origin) == (MINE, "server")
    assert table.get("A\u0308ther ♪", ADA).origin == "user"
    table.delete("speech", ADA)
    assert table.get("speech", ADA).options == BUILT_IN["speech"]
    for name in ("speech", "no such"):
        with pytest.raises(PresetNotFound):
            table.delete(name, ADA)


def test_names_differ_by_case(table: Presets) -> None:
    table.put("Mine", MINE, ADA)
    for name in ("mine", "Mine ", "x" * 61):
        with pytest.raises(PresetNotFound):
            table.get(name, ADA)
    for name in ("Mine ", "x\0", "x" * 61):  # PostgreSQL has no text with a zero
        with pytest.raises(PresetNotFound):
            table.delete(name, ADA)
    for name in ("", " a", "a/b", "a\n", "\u202ea", "x" * 61, ".."):
        with pytest.raises(BadOption):
            table.put(name, MINE, ADA)


def test_number_of_presets_is_limited(table: Presets, database: Database) -> None:
    rows = [{"owner": ADA, "name": f"p{n}", "options": "{}"} for n in range(MAX_PRESETS - 1)]
    database.run(lambda connection: connection.execute(insert(presets), rows))
    refused: list[int] = []

    def add(number: int) -> None:
        try:
            table.put(f"new {number}", MINE, ADA)
        except TooManyPresets:
            refused.append(number)

    at_once(3, add)
    assert len(refused) == 2
    table.put("p0", MINE, ADA)
    table.put("new", MINE, BOB)
    assert table.get("p0", ADA).options == MINE


def test_presets_are_deleted_with_the_account(table: Presets, database: Database) -> None:
    table.put("mine", MINE, ADA)
    table.put("mine", MINE, BOB)
    DeletedUsers(database).mark(ADA)
    assert [preset.origin for preset in table.of(ADA) + table.of(BOB)].count("user") == 1
    left = insert(presets).values(owner=ADA, name="mine", options="{}")
    database.run(lambda connection: connection.execute(left))  # by the previous version, during a rolling update
    DeletedUsers(database).purge(ADA)
    assert [preset.origin for preset in table.of(ADA) + table.of(BOB)].count("user") == 1
    with pytest.raises(OwnerChanged):
        table.put("mine", MINE, ADA)


def test_withdrawn_token_saves_no_preset(table: Presets) -> None:
    table.put("mine", MINE, ADA, version=0)
    with pytest.raises(OwnerChanged):
        table.put("mine", {}, ADA, version=1)
    assert table.get("mine", ADA).options == MINE


def test_preset_is_expanded_under_what_is_given(table: Presets) -> None:
    table.put("vbr", {"vbr": "4", "mono": "true"}, ADA)
    for fields, expected in (
        ({"preset": "speech"}, BUILT_IN["speech"]),
        ({"preset": "speech", "mono": "false", "volume": ""}, {**BUILT_IN["speech"], "mono": "false"}),
        ({"preset": "speech", "vbr": "2"}, {"mono": "true", "normalize": "true", "vbr": "2"}),
        ({"preset": "vbr", "bitrate": "64k"}, {"mono": "true", "bitrate": "64k"}),
        ({"preset": "", "vbr": "2"}, {"vbr": "2"}),
        ({"vbr": "2"}, {"vbr": "2"}),
    ):
        assert table.expand(fields, ADA) == expected
    with pytest.raises(BadOption) as refused:
        table.expand({"preset": "vbr"}, BOB)
    assert refused.value.field == "preset"
