"""The limits that every client meets first: in the gateway (nginx) and in the embedded platform's ingress.

The functions' server, ``infra.worker``, refuses requests with the same sentences.

``tests/unit/infra/test_gateway.py`` compares them with functions/gateway/nginx.conf.
"""

import errno
from typing import Final

#: Seconds: for the head of a request, for a pause in its body, and for a pause while the response is read.
HEADER_SECONDS: Final = 30
BODY_SECONDS: Final = 30
SEND_SECONDS: Final = 30
#: Seconds that an idle connection is kept.
KEEPALIVE_SECONDS: Final = 75
#: Bytes of the request line, and of one header field. Functions refuse what is longer than 8 KiB themselves.
MAX_LINE: Final = 16 << 10
MAX_FIELDS: Final = 100
#: Requests in progress, requests a second, and requests at once beyond that rate, of one client's network.
REQUESTS_AT_ONCE: Final = 128
REQUESTS_PER_SECOND: Final = 200
BURST: Final = 1000
#: Seconds after which a client that is refused may try again.
RETRY_AFTER: Final = 5
#: Of a response with status 429 (RateLimit as in functions/rate_limits.py).
REFUSAL_HEADERS: Final = {
    "Retry-After": str(RETRY_AFTER),
    "RateLimit-Policy": f'"requests";q={BURST};w={BURST // REQUESTS_PER_SECOND}',
    "RateLimit": f'"requests";r=0;t={RETRY_AFTER}',
}
#: Errors of the kernel that pass once something else is closed.
OUT_OF_RESOURCES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
#: Seconds without accepting connections after one could not be accepted.
ACCEPT_PAUSE: Final = 1.0

#: Of the documents of the API. Unlike other responses, other sites may read them, and /docs may use its style sheet.
DOCUMENT_HEADERS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

#: Of the page for people: it loads and calls nothing but this server, and runs no script but its own files. The one
#: policy of Trusted Types, in site/src/share.ts, knows no address but that of the service worker.
PAGE_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types share",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
#: Of the page's files, whose names change with their contents.
ASSET_HEADERS: Final = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
#: Of the service worker that receives what phones share with the page. It calls nothing.
WORKER_HEADERS: Final = {**ASSET_HEADERS, "Cache-Control": "no-cache"}
#: Where a phone's share sheet sends files. The service worker receives them; without one nobody does, and the page says
#: so.
SHARE: Final = "/share/"
#: Seconds for all of it: the browser reads the answer once it has sent the files.
SHARE_SECONDS: Final = 600
NOT_RECEIVED: Final = "/#not-received"
SHARE_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
#: Of the embedded platform, in place of the page.
NO_PAGE: Final = (
    "The page is not built, which needs the registry of npm: start mp3burst again, and read what it says. "
    "The HTTP calls work without it; /docs describes them."
)

NOT_FOUND: Final = "There is nothing at this address: check the path."
#: What is wrong with a request, or with the function that it is for, by status.
MESSAGES: Final = {
    400: "The request is not valid HTTP: check the client that sends it.",
    405: "The method is not supported: use one that the documentation lists.",
    408: "The request arrived too slowly: try again on a faster connection.",
    413: "The request is too large: send a shorter one.",
    414: "The address is too long: send a shorter path or query.",
    429: "Too many requests from your network: try again in a few seconds.",
    431: "The header fields are too many or too long: send fewer and shorter ones.",
    500: "Something went wrong on our side: try again later.",
    501: "The transfer coding is not supported: send the body as it is or chunked.",
    502: "The service did not respond: try again.",
    503: "The service is busy: try again in a few seconds.",
    504: "The service took too long to respond: try again later.",
}
#: What a user does about a function that stopped before it answered, by the beginning of the path; others try again.
INTERRUPTED: Final = {
    "/upload": "The service stopped during the upload: send the file again. An upload by /files could continue.",
    "/files": "The service stopped during the upload: ask for the offset and continue there.",
}


def interrupted(path: str) -> str:
    """Returns the sentence for a request whose function stopped before it answered."""
    found = (text for begin, text in INTERRUPTED.items() if f"{path}/".startswith(f"{begin}/"))
    return next(found, MESSAGES[502])
