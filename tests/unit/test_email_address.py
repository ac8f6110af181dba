"""Which email addresses are accepted."""

import pytest

from functions.email_address import BadAddress, mailbox, parse, parse_public


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("ann@example.org", "ann@example.org"),
        ("ann+mp3@mail.example.co.uk", "ann+mp3@mail.example.co.uk"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
        ("ann@example.xn--p1ai", "ann@example.xn--p1ai"),
        ("ann@local.example.org", "ann@local.example.org"),
        (f"ann@{'x' * 63}.org", f"ann@{'x' * 63}.org"),
    ],
)
def test_accepted(text: str, stored: str) -> None:
    assert parse_public(text).addr_spec == stored


@pytest.mark.parametrize(
    "domain",
    [
        *("[127.0.0.1]", "[IPv6:::1]", "[10.0.0.1]", "[mail]"),
        *(
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "127.0.0.0x1",
            "\uff11\uff12\uff17.0.0.1",
            "127\u30020\u30020\u30021",
        ),
        *("localhost", "mail", "router.lan", "printer.local", "mail.internal", "db.corp", "nas.home", "a.home.arpa"),
        *("x.localhost", "x.LOCAL", "x.local\uff48ost", "x.test", "x.invalid", "x.onion", "x.intranet", "x.private"),
    ],
)
def test_addresses_of_private_networks_are_refused(domain: str) -> None:
    with pytest.raises(BadAddress):
        parse_public(f"ann@{domain}")


def test_literals_are_no_recipients_even_of_users_from_before() -> None:
    with pytest.raises(BadAddress):
        parse("ann@[127.0.0.1]")


def test_long_label_is_refused_before_it_is_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    """IDNA takes quadratic time, and one character may become eighteen."""

    def convert(_: str) -> str:
        raise AssertionError("the label was converted")

    monkeypatch.setattr("encodings.idna.nameprep", convert)
    with pytest.raises(BadAddress):
        parse(f"ann@{'é' * 64}.org")
    with pytest.raises(AssertionError):
        parse(f"ann@{'é' * 63}.org")


@pytest.mark.parametrize(
    "spelling",
    [
        " ann.lee@example.org ",
        "ANN.LEE@Example.ORG",
        "annlee@example.org",
        "ann.lee+1@example.org",
        "annlee+@example.org",
    ],
)
def test_spellings_of_one_mailbox(spelling: str) -> None:
    assert mailbox(spelling) == mailbox("ann.lee@example.org")


def test_different_mailboxes() -> None:
    addresses = ["ann@example.org", "bob@example.org", "ann@example.com", "ann@mail.example.org", "ann@[127.0.0.1]", ""]
    assert len({mailbox(address) for address in addresses}) == len(addresses)
    assert mailbox("ann@bücher.example") == mailbox("ann@xn--bcher-kva.example")
