"""The operations of ``webhooks``, and their types."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from functions.operation import JSON, Answer, Body, Id, Operation, Timestamp

_WEBHOOK: Final = {"webhook": "The id of the webhook, from GET /webhooks."}
_DELIVERY: Final = {"delivery": "The id of the delivery, from GET /webhooks/deliveries."}
_NO_WEBHOOK: Final = {404: "There is no such webhook, or it is another user's."}
_NO_DELIVERY: Final = {404: "There is no such delivery, or it is another user's."}


class NewWebhook(Struct, frozen=True):
    """A webhook to create."""

    url: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=2000,
            description="Its address on the public internet, by HTTPS.",
            examples=["https://example.org/mp3burst"],
        ),
    ]


class ListedWebhook(Struct, frozen=True, kw_only=True):
    """An address that is told when a job of the user has ended."""

    id: Annotated[Id, Meta(description="The id of the webhook.")]
    url: str
    state: Annotated[
        Literal["active", "gone"],
        Meta(description="`gone` once its receiver has answered 410: it gets nothing until it is pinged."),
    ]
    created: Timestamp
    secret: Annotated[str, Meta(description="Verifies its signatures `v1`.")]


class WebhookList(Struct, frozen=True):
    """The webhooks of a user."""

    webhooks: list[ListedWebhook]
    callback_secret: Annotated[str, Meta(description="Verifies the signatures `v1` of the callbacks of uploads.")]
    public_key: Annotated[str, Meta(description="Verifies the signatures `v1a` of all webhooks.")]


class DeliveriesQuery(Struct, frozen=True):
    """The query of GET /webhooks/deliveries."""

    limit: Annotated[int, Meta(ge=1, le=500, description="Deliveries in the page.")] = 50
    after: Annotated[str | None, Meta(description="`next` of the previous page.")] = None


class ListedDelivery(Struct, frozen=True, kw_only=True):
    """An event on its way to a webhook, or to the callback of an upload."""

    id: Annotated[Id, Meta(description="The `webhook-id` of each attempt.")]
    webhook: Annotated[Id | None, Meta(description="The id of the webhook; null for a callback.")]
    url: str
    job: Annotated[Id | None, Meta(description="The id of the job; null for a ping.")]
    event: Annotated[str, Meta(description="The type of the event.")]
    state: Literal["due", "delivered", "failed"]
    attempts: Annotated[int, Meta(ge=0)]
    status: Annotated[int | None, Meta(description="The status of the last response.")]
    error: Annotated[str | None, Meta(description="What went wrong at the last attempt.")]
    created: Timestamp
    tried: Annotated[Timestamp | None, Meta(description="When the last attempt ended.")]
    due: Annotated[Timestamp | None, Meta(description="When the next attempt is due.")]


class DeliveryPage(Struct, frozen=True):
    """A page of the list of deliveries."""

    deliveries: list[ListedDelivery]
    next: Annotated[str | None, Meta(description="The value of `after` for the next page; null on the last one.")]


class AcceptedDelivery(Struct, frozen=True):
    """A delivery that will be made at once."""

    delivery: Annotated[Id, Meta(description="The id of the delivery.")]


CREATE: Final = Operation(
    "POST",
    "/webhooks",
    "Create a webhook",
    (Answer(201, "The webhook.", ListedWebhook, headers={"Location": "The path of the webhook."}),),
    description=(
        "From now on, each job of the user that is done or has failed is reported to this address by a `POST`. The "
        "receiver is asked by `OPTIONS` first whether it allows that (CloudEvents webhooks); one that does not know "
        "this handshake counts as allowing it, unless the operator has set `WEBHOOK_HANDSHAKE=required`."
    ),
    scope="account",
    body=Body({JSON: NewWebhook}),
    problems={409: "The user has as many webhooks as allowed."},
)
LIST: Final = Operation(
    "GET",
    "/webhooks",
    "List webhooks",
    (Answer(200, "The webhooks, newest first, and what verifies their signatures.", WebhookList),),
    scope="account",
)
DELETE: Final = Operation(
    "DELETE",
    "/webhooks/{webhook}",
    "Delete a webhook",
    (Answer(204, "The webhook and its deliveries are deleted."),),
    scope="account",
    parameters=_WEBHOOK,
    problems=_NO_WEBHOOK,
)
PING: Final = Operation(
    "POST",
    "/webhooks/{webhook}/ping",
    "Try a webhook",
    (Answer(202, "An event of the type `dev.mp3burst.ping` is on its way.", AcceptedDelivery),),
    description="A webhook that was `gone` is active again.",
    scope="account",
    parameters=_WEBHOOK,
    problems={**_NO_WEBHOOK, 409: "So many pings of the webhook are due that another one tries nothing."},
)
LIST_DELIVERIES: Final = Operation(
    "GET",
    "/webhooks/deliveries",
    "List deliveries",
    (Answer(200, "The deliveries, newest first.", DeliveryPage),),
    scope="account",
    query=DeliveriesQuery,
    problems=_NO_DELIVERY,
)
RESEND: Final = Operation(
    "POST",
    "/webhooks/deliveries/{delivery}/resend",
    "Repeat a delivery",
    (Answer(202, "The event is on its way again, under the same `webhook-id`.", AcceptedDelivery),),
    scope="account",
    parameters=_DELIVERY,
    problems=_NO_DELIVERY,
)
