"""A token or key that was withdrawn adds nothing that would outlast it, also in a request that began before."""

from types import SimpleNamespace
from typing import Any

import pytest

from functions.auth.tokens import Identity, NotAuthenticated
from functions.download import main as download
from functions.shares import Shares
from functions.state.schema import UserId
from functions.webhooks import main as webhooks
from tests.support.calls import Call

ANN = Identity(UserId("a" * 32), "ann", "user", {}, None)


@pytest.mark.parametrize("path", ["/links", "/feed"])
def test_database_is_asked_before_a_link_or_a_feed_is_created(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def identify(*_: object, is_cached: bool = True) -> Identity:
        if not is_cached:
            raise NotAuthenticated("This token was withdrawn.", "withdrawn")
        return ANN

    monkeypatch.setattr(download, "identify", identify)
    assert Call("download", "POST", path, body=b"{}").send().status_code == 401


def test_webhook_is_not_created_for_what_was_withdrawn_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    withdrawn: list[bool] = []
    created: list[str] = []

    def identify(*_: object, **__: object) -> Identity:
        if withdrawn:
            raise NotAuthenticated("This token was withdrawn.", "withdrawn")
        return ANN

    deps: Any = SimpleNamespace(
        shares=Shares(1, 1, 1),
        limit=SimpleNamespace(use=lambda _: None),
        handshake=SimpleNamespace(ask=withdrawn.append),
        webhooks=SimpleNamespace(add=lambda *_: created.append("webhook")),
    )
    monkeypatch.setattr(webhooks, "identify", identify)
    monkeypatch.setattr(webhooks, "dependencies", lambda: deps)
    answer = Call("webhooks", "POST", "/webhooks", body=b'{"url": "https://example.org/"}').send()
    assert (answer.status_code, created) == (401, [])
