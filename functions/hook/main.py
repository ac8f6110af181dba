"""Tells the webhooks of users what became of their jobs."""

import functools
import os

import functions_framework
from cloudevents.http import CloudEvent

from events.schema import DeliveryDue
from functions.event_endpoint import handling, received
from functions.hook.delivery import Courier, deliver
from functions.hook.slow import SlowReceivers
from functions.outgoing.handshake import Handshake
from functions.outgoing.signatures import Signer
from functions.settings import required
from functions.state.database import shared
from functions.state.webhooks import Deliveries


@functions_framework.cloud_event
def hook(event: CloudEvent) -> None:
    """Handles delivery.due of dev.mp3burst."""
    if isinstance(announced := received(event), DeliveryDue):
        with handling(announced):
            deliver(announced.delivery, dependencies())


@functools.cache
def dependencies() -> Courier:
    """Builds the dependencies from the environment, once per process."""
    return Courier(
        deliveries=Deliveries(shared(os.environ)),
        handshake=Handshake.from_environ(os.environ),
        signer=Signer.from_environ(os.environ),
        source=required(os.environ, "PUBLIC_URL", "the URL where users reach the system"),
        slow=SlowReceivers.from_environ(os.environ),
    )
