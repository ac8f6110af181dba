"""The operation of ``metrics``."""

from typing import Final

from functions.operation import Answer, Operation

#: The text format that every collector reads.
TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"

SHOW_METRICS: Final = Operation(
    "GET",
    "/metrics",
    "Show the metrics",
    (Answer(200, "The metrics in the text format of Prometheus.", content_type=TEXT),),
    description="For programs that collect them. They are at most 5 seconds old; users and what is stored, 5 minutes.",
    scope="metrics",
    problems={
        403: "The user is no administrator, the API key lacks the scope, or the request comes from another site."
    },
)
