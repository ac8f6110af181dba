"""A function that does nothing: what every function on this stack costs at least."""

import functions_framework
from flask import Request


@functions_framework.http
def hello(_: Request) -> str:
    """Greet."""
    return "hello"
