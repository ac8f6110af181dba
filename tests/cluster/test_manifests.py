"""The API server takes every manifest, and every pod of ours keeps to Pod Security's level restricted."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.support.paths import ROOT

FOLDERS = [path.parent.relative_to(ROOT) for path in ROOT.glob("infra/**/kustomization.yaml")]
SERVERS = ("rabbitmq", "mongodb", "postgresql", "mysql")


@pytest.mark.parametrize("folder", [*FOLDERS, Path("knative")], ids=str)
def test_the_api_server_takes_the_manifests_of(cluster: Cluster, folder: Path) -> None:
    text = cluster.kubectl("kustomize", str(ROOT / folder))
    said = cluster.kubectl("apply", "--dry-run=server", "--filename", "-", given=text)
    assert said.count("(server dry run)") == text.count("\nkind: ") + text.startswith("kind: ")


def test_the_api_server_takes_what_nobody_installs_by_default(cluster: Cluster) -> None:
    file = ROOT / "infra/rabbitmq/ingress.yaml"
    assert "(server dry run)" in cluster.kubectl("apply", "--dry-run=server", "--filename", str(file))


@pytest.fixture
def elsewhere(cluster: Cluster) -> Iterator[str]:
    """A namespace of its own, for as long as the test lasts."""
    cluster.kubectl("create", "namespace", "mp3burst-test")
    yield "mp3burst-test"
    cluster.kubectl("delete", "namespace", "mp3burst-test")


def test_servers_that_are_applied_again_are_unchanged(cluster: Cluster, elsewhere: str) -> None:
    """None of them starts: no volume is provided for them there, or no image is found."""
    texts = [cluster.kubectl("kustomize", str(ROOT / "infra" / name)) for name in SERVERS]
    text = "\n---\n".join(texts).replace("namespace: mp3burst\n", f"namespace: {elsewhere}\n")
    command = ("apply", "--namespace", elsewhere, "--filename", "-")
    first, again = (cluster.kubectl(*command, given=text).splitlines() for _ in range(2))
    assert len(first) > 12
    assert [line for line in again if not line.endswith(" unchanged")] == []


def test_every_pod_but_the_brokers_own_keeps_to_restricted(cluster: Cluster) -> None:
    """The namespace warns of whatever does not, when a Deployment is applied."""
    mine: list[dict[str, Any]] = []
    brokers: list[dict[str, Any]] = []
    for each in cluster.get("deployments"):
        labels = each["spec"]["template"]["metadata"]["labels"]
        (brokers if "eventing.knative.dev/broker" in labels else mine).append(each)
        # Nothing is judged that does not change.
        each["spec"]["template"]["metadata"].setdefault("annotations", {})["mp3burst.dev/dry"] = "run"
        del each["metadata"]["resourceVersion"]
    assert len(mine) > 13

    def warnings(items: list[dict[str, Any]]) -> str:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        return cluster.warnings(
            "apply", "--dry-run=server", "--force-conflicts", "--server-side", "--filename", "-", given=text
        )

    assert "violate PodSecurity" not in warnings(mine)
    assert "violate PodSecurity" in warnings(brokers), "the broker keeps to it now: let the namespace enforce it"
