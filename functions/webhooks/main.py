"""Lets users manage their webhooks."""

import functools
import os
from dataclasses import dataclass

import functions_framework
from flask import Request, Response

from events.publish import publisher
from events.schema import DeliveryDue
from functions import security_log
from functions.auth.allowance import WebhookLimit
from functions.auth.tokens import Identity
from functions.http_endpoint import (
    Routes,
    client_address,
    identify,
    iso_time,
    json_response,
    prepare_to_identify,
    read_json,
    read_query,
)
from functions.outgoing.handshake import Handshake
from functions.outgoing.signatures import Signer
from functions.shares import Shares
from functions.state.database import shared
from functions.state.outbox import REQUEST_BUDGET, Outbox
from functions.state.webhooks import Delivery, Webhook, Webhooks
from functions.warm_up import before_first_request
from functions.webhooks import api


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What managing webhooks needs.

    Attributes:
        webhooks: the tables.
        handshake: asks a receiver whether it wants events.
        signer: knows the secrets.
        outbox: emits events.
        limit: limits how often a user has receivers called.
        shares: how many receivers are asked at once.
    """

    webhooks: Webhooks
    handshake: Handshake
    signer: Signer
    outbox: Outbox
    limit: WebhookLimit
    shares: Shares


@functions_framework.http
def webhooks(request: Request) -> Response:
    """Handles /webhooks."""
    return _ROUTES.answer(request)


def _create(request: Request) -> Response:
    identity = _identify(request)
    deps = dependencies()
    url = read_json(request, api.NewWebhook).url
    end = deps.shares.take(identity.user, client_address(request, os.environ))
    try:
        deps.limit.use(identity.user)
        rate = deps.handshake.ask(url)
    finally:
        end()
    # The receiver may have taken seconds, in which the user may have withdrawn what this request was sent with.
    identity = _identify(request)
    created = deps.webhooks.add(identity.user, url, rate, identity.token_version, identity.stored_key)
    _record(request, identity, "webhook.created", webhook=created.id)
    return json_response(_shown(created, deps.signer), 201, {"Location": f"/webhooks/{created.id}"})


def _list(request: Request) -> Response:
    owner = _identify(request).user
    deps = dependencies()
    found = [_shown(webhook, deps.signer) for webhook in deps.webhooks.of(owner)]
    return json_response(api.WebhookList(found, deps.signer.secret(owner), deps.signer.public_key))


def _delete(request: Request, webhook: str) -> Response:
    identity = _identify(request)
    dependencies().webhooks.delete(webhook, identity.user)
    _record(request, identity, "webhook.deleted", webhook=webhook)
    return Response(status=204)


def _ping(request: Request, webhook: str) -> Response:
    user = _identify(request).user
    deps = dependencies()
    deps.limit.use(user)
    return _accepted(deps.webhooks.ping(webhook, user))


def _deliveries(request: Request) -> Response:
    query = read_query(request, api.DeliveriesQuery)
    page = dependencies().webhooks.deliveries(_identify(request).user, query.limit + 1, query.after)
    is_more = len(page) > query.limit
    shown = [_shown_delivery(delivery) for delivery in page[: query.limit]]
    return json_response(api.DeliveryPage(shown, page[query.limit - 1].id if is_more else None))


def _resend(request: Request, delivery: str) -> Response:
    user = _identify(request).user
    deps = dependencies()
    deps.limit.use(user)
    return _accepted(deps.webhooks.resend(delivery, user))


def _accepted(event: DeliveryDue) -> Response:
    dependencies().outbox.emit(event, REQUEST_BUDGET)
    return json_response(api.AcceptedDelivery(event.delivery), 202)


def _shown(webhook: Webhook, signer: Signer) -> api.ListedWebhook:
    return api.ListedWebhook(
        id=webhook.id,
        url=webhook.url,
        state=webhook.state,
        created=iso_time(webhook.created_at) or "",
        secret=signer.secret(webhook.id),
    )


def _shown_delivery(delivery: Delivery) -> api.ListedDelivery:
    return api.ListedDelivery(
        id=delivery.id,
        webhook=delivery.webhook,
        url=delivery.url,
        job=delivery.job,
        event=delivery.kind,
        state=delivery.state,
        attempts=delivery.attempts,
        status=delivery.status,
        error=delivery.error,
        created=iso_time(delivery.created_at) or "",
        tried=iso_time(delivery.tried_at),
        due=iso_time(delivery.due_at),
    )


def _identify(request: Request) -> Identity:
    return identify(request, os.environ, is_cached=False)


def _record(request: Request, identity: Identity, event: str, **details: object) -> None:
    security_log.record(event, user=identity.username, address=client_address(request, os.environ), **details)


@functools.cache
def dependencies() -> Dependencies:
    """Builds the dependencies from the environment, once per process."""
    database = shared(os.environ)
    return Dependencies(
        webhooks=Webhooks(database),
        handshake=Handshake.from_environ(os.environ),
        signer=Signer.from_environ(os.environ),
        outbox=Outbox(database, publisher(os.environ, "/mp3burst/webhooks")),
        limit=WebhookLimit(database),
        shares=Shares.from_environ(os.environ),
    )


before_first_request(prepare_to_identify)
_ROUTES = Routes(
    {
        api.CREATE: _create,
        api.LIST: _list,
        api.LIST_DELIVERIES: _deliveries,
        api.RESEND: _resend,
        api.PING: _ping,
        api.DELETE: _delete,
    }
)
