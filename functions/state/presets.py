"""The presets of users, beside those that everyone has."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, and_, delete, func, insert, select

from events.errors import Mp3burstError
from functions.options import BadOption
from functions.presets import NAMES, PRESET, Form, is_name, merge, normalize
from functions.state.database import Database
from functions.state.owners import lock_owner
from functions.state.schema import UserId, presets

#: Presets of one user.
MAX_PRESETS: Final = 100


class PresetNotFound(Mp3burstError):
    """There is no preset of this name."""

    status = 404


class TooManyPresets(Mp3burstError):
    """The user has as many presets as a user may have."""

    status = 409


@dataclass(frozen=True, slots=True)
class Preset:
    """A preset, as its user sees it.

    Attributes:
        name: names it in ``preset``.
        options: as in a form.
        origin: who made it: the user, or whoever runs the server.
    """

    name: str
    options: Form
    origin: Literal["user", "server"]


class Presets:
    """The table of presets."""

    def __init__(self, database: Database, common: Mapping[str, Form]) -> None:
        """Creates the access to the table; ``common`` are the presets that everyone has."""
        self._database = database
        self._common = {name: Preset(name, options, "server") for name, options in common.items()}

    def of(self, owner: UserId) -> list[Preset]:
        """Returns the owner's presets by name, then those that everyone has; the owner's hides one of the same name."""
        query = select(presets.c.name, presets.c.options).where(presets.c.owner == owner).order_by(presets.c.name)
        own = [_preset(row) for row in self._database.read(lambda connection: connection.execute(query).all())]
        hidden = {preset.name for preset in own}
        return own + [preset for preset in self._common.values() if preset.name not in hidden]

    def get(self, name: str, owner: UserId) -> Preset:
        """Returns the preset that this name is for the owner.

        Raises:
            PresetNotFound: there is none.
        """
        found = normalize(name)
        query = select(presets.c.name, presets.c.options).where(_is(found, owner))
        row = None
        if is_name(found):
            row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        preset = self._common.get(found) if row is None else _preset(row)
        if preset is None:
            raise PresetNotFound("There is no such preset: GET /presets lists them.")
        return preset

    def put(self, name: str, options: Form, owner: UserId, version: int | None = None) -> Preset:
        """Creates or replaces the owner's preset of this name.

        Args:
            name: its name.
            options: its options, which were checked.
            owner: the user.
            version: of the token that the request was sent with; None for an API key.

        Raises:
            BadOption: nothing can have this name.
            TooManyPresets: the owner has MAX_PRESETS others.
            OwnerChanged: the owner was deleted, or the token was withdrawn.
        """
        new = normalize(name)
        if not is_name(new):
            raise BadOption("name", f"The name of a preset has {NAMES}.")
        row = insert(presets).values(owner=owner, name=new, options=json.dumps(dict(options)))
        count = select(func.count()).where(presets.c.owner == owner)

        def put(connection: Connection) -> None:
            lock_owner(connection, owner, version)
            connection.execute(delete(presets).where(_is(new, owner)))
            if (connection.scalar(count) or 0) >= MAX_PRESETS:
                raise TooManyPresets(f"You have {MAX_PRESETS} presets, and no more are allowed: delete some.")
            connection.execute(row)

        self._database.run(put)
        return Preset(new, options, "user")

    def delete(self, name: str, owner: UserId) -> None:
        """Deletes the owner's preset of this name.

        Raises:
            PresetNotFound: there is none of the owner's.
        """
        found = normalize(name)
        mine = delete(presets).where(_is(found, owner))
        deleted: list[int] = []  # one entry per run: after a lost answer to the commit, only the first run found it
        if is_name(found):
            self._database.run(lambda connection: deleted.append(connection.execute(mine).rowcount))
        if not any(deleted):
            raise PresetNotFound("You have no such preset: GET /presets lists them.")

    def expand(self, fields: Form, owner: UserId) -> Form:
        """Returns the options of an upload with those of the preset that it names.

        Raises:
            BadOption: there is no such preset.
        """
        if PRESET not in fields:
            return fields
        others = {name: value for name, value in fields.items() if name != PRESET}
        if not fields[PRESET]:
            return others
        try:
            return merge(self.get(fields[PRESET], owner).options, others)
        except PresetNotFound as error:
            raise BadOption(PRESET, str(error)) from error


def _is(name: str, owner: UserId) -> Any:
    return and_(presets.c.owner == owner, presets.c.name == name)


def _preset(row: Any) -> Preset:
    return Preset(row.name, json.loads(row.options), "user")
