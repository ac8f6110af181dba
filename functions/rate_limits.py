"""Limits as clients are told of them: the headers RateLimit-Policy and RateLimit.

They follow draft-ietf-httpapi-ratelimit-headers-10: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A limit, and what is left of it.

    Attributes:
        name: what is limited; a client compares limits by it.
        quota: how much there is.
        left: how much of it is left.
        unit: what is counted.
        window: seconds after which all of the quota is there again; None if it does not depend on time.
        reset: seconds until more is left, if it is known.
    """

    name: str
    quota: int
    left: int
    unit: Literal["requests", "content-bytes", "concurrent-requests"] = "requests"
    window: int | None = None
    reset: int | None = None


#: Is told of a limit, and tells the client.
Tell = Callable[[RateLimit], None]


def headers(limits: Iterable[RateLimit]) -> dict[str, str]:
    """Returns the headers that tell a client of these limits; none without limits."""
    known = list(limits)
    if not known:
        return {}
    return {"RateLimit-Policy": ", ".join(map(_policy, known)), "RateLimit": ", ".join(map(_state, known))}


def _policy(limit: RateLimit) -> str:
    unit = f';qu="{limit.unit}"' if limit.unit != "requests" else ""
    window = f";w={limit.window}" if limit.window is not None else ""
    return f'"{limit.name}";q={limit.quota}{unit}{window}'


def _state(limit: RateLimit) -> str:
    reset = f";t={limit.reset}" if limit.reset is not None else ""
    return f'"{limit.name}";r={limit.left}{reset}'
