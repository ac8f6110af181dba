"""Tests that functions see the address that a client connects from, whatever the client sends in X-Forwarded-For."""

import os
import re
import shlex
import subprocess

import pytest

from tests.cluster.cluster import Cluster, until

_FORGED = ["203.0.113.1", "203.0.113.2, 10.0.0.1", "2001:db8::1"]


def test_client_cannot_choose_its_address(cluster: Cluster) -> None:
    """Compares the addresses in the security log, with login's own host name and with the gateway's."""
    curl = os.environ.get("CLUSTER_CURL")
    if not curl:
        pytest.skip("CLUSTER_CURL, a curl whose address is not private for the cluster, is not set")
    hosts = cluster.hosts()
    urls = [f"http://{hosts[name]}/login" for name in ("login", "gateway")]
    for forged in ["", *_FORGED]:
        header = ["--header", f"X-Forwarded-For: {forged}"] if forged else []
        arguments = [
            "--silent",
            "--max-time",
            "60",
            "--write-out",
            "%{stderr}%{http_code}",
            "--request",
            "POST",
            *header,
        ]
        for url in urls:
            done = subprocess.run([*shlex.split(curl), *arguments, url], capture_output=True, text=True, check=True)
            assert done.stderr == "401"

    def addresses() -> list[str]:
        logs = [cluster.kubectl("logs", pod, "-c", "user-container", "--since=1m") for pod in cluster.pods("login")]
        found = re.findall(r"event=login\.failed .* address=(\w+) reason=missing", "".join(logs))
        return found if len(found) >= len(urls) * (1 + len(_FORGED)) else []

    assert len({*until(addresses, "the lines of the security log")}) == 1
