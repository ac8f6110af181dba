"""The headers that tell clients of limits."""

from functions.rate_limits import RateLimit, headers


def test_headers_follow_the_draft() -> None:
    limits = [
        RateLimit("registrations", 10, 0, window=3600, reset=120),
        RateLimit("transfers", 8, 7, unit="concurrent-requests"),
    ]
    assert headers(limits) == {
        "RateLimit-Policy": '"registrations";q=10;w=3600, "transfers";q=8;qu="concurrent-requests"',
        "RateLimit": '"registrations";r=0;t=120, "transfers";r=7',
    }
    assert headers([]) == {}
