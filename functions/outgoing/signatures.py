"""Signs webhooks by the rules of Standard Webhooks (https://www.standardwebhooks.com): ``v1`` and ``v1a``.

All secrets follow from one key of the installation, so none is stored. ``v1`` is an HMAC with a secret of the webhook's
own, or one for all callbacks of a user; ``v1a`` is an Ed25519 signature, which the public key verifies.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

from functions.settings import BadSetting, required

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_MIN_KEY: Final = 32  # bytes


class Signer:
    """Signs messages, and knows the secrets that verify them."""

    def __init__(self, key: str) -> None:
        """Creates the signer of an installation; ``key`` has at least 32 bytes."""
        self._key = key.encode()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Reads ``WEBHOOK_KEY``.

        Raises:
            BadSetting: it is missing or too short.
        """
        key = required(environ, "WEBHOOK_KEY", "the key that the secrets of webhooks follow from")
        if len(key.encode()) < _MIN_KEY:
            raise BadSetting(
                f"WEBHOOK_KEY must be a random text of at least {_MIN_KEY} bytes, such as the output of "
                "openssl rand -hex 32."
            )
        return cls(key)

    def secret(self, whose: str) -> str:
        """Returns the secret of a webhook, or of a user's callbacks, given the id of either."""
        return "whsec_" + base64.b64encode(self._derived(f"webhook:{whose}")).decode()

    @property
    def public_key(self) -> str:
        """The public key that verifies ``v1a``."""
        return "whpk_" + base64.b64encode(self._private_key.public_key().public_bytes_raw()).decode()

    def headers(self, message: str, whose: str, body: bytes, at: datetime | None = None) -> dict[str, str]:
        """Returns the header fields of a signed message.

        Args:
            message: its id, the same for every attempt to deliver it.
            whose: the id of the webhook, or of the user whose callback it is.
            body: the bytes.
            at: the time of the attempt; now by default.
        """
        from standardwebhooks.webhooks import Webhook

        at = at or datetime.now(UTC)
        timestamp = str(int(at.timestamp()))
        signed = b".".join((message.encode(), timestamp.encode(), body))
        asymmetric = base64.b64encode(self._private_key.sign(signed)).decode()
        symmetric = Webhook(self.secret(whose)).sign(message, at, body.decode())
        return {
            "webhook-id": message,
            "webhook-timestamp": timestamp,
            "webhook-signature": f"{symmetric} v1a,{asymmetric}",
        }

    @cached_property
    def _private_key(self) -> "Ed25519PrivateKey":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self._derived("ed25519"))

    def _derived(self, purpose: str) -> bytes:
        return hmac.digest(self._key, purpose.encode(), hashlib.sha256)
