"""Makes exchanges and queues on a RabbitMQ server, or takes what is there."""

from collections.abc import Callable
from typing import Any

from events.rabbitmq.topology import Declarations, Exchange, Queue, plain

_NOT_FOUND, _PRECONDITION_FAILED, _NOT_IMPLEMENTED = 404, 406, 540  # reply codes of AMQP 0-9-1


class Declaring:
    """Declares one thing after the other. On a fault the server closes the channel: it goes on with another."""

    def __init__(self, declarations: Declarations) -> None:
        self._left = list(declarations)
        self._way = "as asked"

    def go_on(self, channel: Any, done: Callable[[], None]) -> None:
        """Declare what is left, then call ``done``."""
        if not self._left:
            done()
            return
        item, passive = self._left[0], self._way == "as it is"

        def declared(_: Any) -> None:
            self._left.pop(0)
            self._way = "as asked"
            self.go_on(channel, done)

        if isinstance(item, Exchange):
            channel.exchange_declare(item.name, item.kind, durable=True, passive=passive, callback=declared)
            return

        def bind(_: Any, queue: Queue = item) -> None:
            channel.queue_bind(queue.name, queue.exchange, queue.key, callback=declared)

        arguments = plain(item.arguments) if self._way == "plain" else dict(item.arguments)
        then = bind if item.exchange else declared
        channel.queue_declare(item.name, durable=True, arguments=arguments, passive=passive, callback=then)

    def gives_way(self, code: int) -> bool:
        """Whether there is another way after the server closed the channel with this code."""
        if self._way == "as asked" and code in (_PRECONDITION_FAILED, _NOT_IMPLEMENTED):
            self._way = "as it is"  # somebody made it before us, otherwise: use that
        elif self._way == "as it is" and code == _NOT_FOUND:
            self._way = "plain"  # nobody did: the server does not know the arguments
        else:
            return False
        return True
