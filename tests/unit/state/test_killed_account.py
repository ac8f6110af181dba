"""Kills account at each of its kill points while it deletes an account; in the end nothing of the user is left."""

from pathlib import Path

import pytest

from tests.support.kill_points import OWNER, System
from tests.unit.state.test_killed import converted, empty, kill_everywhere, uploaded

pytestmark = pytest.mark.usefixtures("memoized")
__all__ = ["converted", "empty", "uploaded"]  # fixtures


def delete(system: System) -> None:
    system.for_account().delete(OWNER)


@pytest.mark.parametrize("state", ["uploaded", "converted"])
def test_killed_deletion_leaves_the_account_whole_or_nothing_of_it(
    state: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    template: Path = request.getfixturevalue(state)
    seen = set()
    for _, system in kill_everywhere(template, tmp_path, delete):
        [user] = system.rows("users")
        seen.add(user.deleted_at is not None)
        if user.deleted_at is None:
            assert system.count("jobs") == 1
            delete(system)  # the client got no answer and tries again
        mails = system.accepted_mails()
        system.let_days_pass()
        for table in ("users", "jobs", "pieces", "mails", "blobs", "api_keys"):
            assert system.count(table) == 0, table
        assert system.blobs_on_disk() == set()
        assert system.accepted_mails() == mails
    assert seen == {True, False}
