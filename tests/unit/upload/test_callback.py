"""The callback of an upload: checked at once as far as that is possible without a name server."""

import socket

import pytest

from functions.http_endpoint import Unprocessable
from functions.outgoing.addresses import Policy
from functions.upload.callback import take_callback


@pytest.fixture(autouse=True)
def no_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers after seconds would keep the upload's thread waiting."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("resolved"))


def test_callback_is_taken_without_resolving_its_host() -> None:
    fields = {"callback": "https://slow.example/hook?secret", "bitrate": "128k"}
    assert take_callback(fields, Policy()) == "https://slow.example/hook?secret"
    assert fields == {"bitrate": "128k"}
    assert take_callback(fields, Policy()) is None


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/", "http://a.example"]
)
def test_address_that_no_name_server_could_make_public_is_refused(url: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        take_callback({"callback": url}, Policy())
    assert set(refused.value.fields) == {"callback"}
