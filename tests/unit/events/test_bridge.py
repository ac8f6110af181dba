"""The bridge's command line: errors name what is wrong."""

import pytest

from events.bridge.__main__ import main
from tests.support.servers import free_port


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        ([], {}, "AMQP_URL is not set"),
        ([], {"AMQP_URL": "amqp://h"}, "--route"),
        (["--route", "film=http://f"], {"AMQP_URL": "amqp://h"}, "must begin with one of video"),
        (["--route", "video=f:80"], {"AMQP_URL": "amqp://h"}, "is not a URL"),
        (["--route", "video=http://f;concurrency=0"], {"AMQP_URL": "amqp://h"}, "concurrency=1"),
        (["--route", "video=http://f;timeout=1800"], {"AMQP_URL": "amqp://h"}, "up to 1500"),
        ([], {"AMQP_URL": "amqp://h", "BRIDGE_ROUTES": "mp3=http://f mp3=http://g"}, "exactly one --route per queue"),
        (["redrive", "film"], {"AMQP_URL": "amqp://h"}, "There is no queue"),
        (["redrive", "video"], {"AMQP_URL": "rabbitmq"}, "AMQP_URL is not a RabbitMQ URL: write amqp://"),
        (["--route", "video=http://f"], {"AMQP_URL": "amqp://me:secret/1@h"}, "AMQP_URL is not a RabbitMQ URL"),
    ],
)
def test_invalid_setting_is_named(
    arguments: list[str], environ: dict[str, str], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(arguments, environ) == 2
    assert says in caplog.text
    assert "secret" not in caplog.text


def test_redrive_reports_an_unavailable_server(caplog: pytest.LogCaptureFixture) -> None:
    assert main(["redrive", "video"], {"AMQP_URL": f"amqp://127.0.0.1:{free_port()}"}) == 1
    assert "RabbitMQ" in caplog.text
