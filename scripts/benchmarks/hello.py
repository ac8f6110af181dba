"""A function that does nothing: the minimum that a function on this stack costs."""

import functions_framework
from flask import Request


@functions_framework.http
def hello(_: Request) -> str:
    """Answers with a greeting."""
    return "hello"
