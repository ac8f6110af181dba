"""Tests that the API server accepts every manifest and that our pods comply with Pod Security's level restricted."""

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
def test_the_api_server_accepts_a_kustomization(cluster: Cluster, folder: Path) -> None:
    text = cluster.kubectl("kustomize", str(ROOT / folder))
    output = cluster.kubectl("apply", "--dry-run=server", "--filename", "-", stdin=text)
    assert output.count("(server dry run)") == text.count("\nkind: ") + text.startswith("kind: ")


def test_the_api_server_accepts_the_optional_ingress(cluster: Cluster) -> None:
    file = ROOT / "infra/rabbitmq/ingress.yaml"
    assert "(server dry run)" in cluster.kubectl("apply", "--dry-run=server", "--filename", str(file))


@pytest.fixture
def other_namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace that exists during the test."""
    cluster.kubectl("create", "namespace", "mp3burst-test")
    yield "mp3burst-test"
    cluster.kubectl("delete", "namespace", "mp3burst-test")


def test_applying_the_servers_again_changes_nothing(cluster: Cluster, other_namespace: str) -> None:
    """No server starts: there are no volumes for them, or no images."""
    texts = [cluster.kubectl("kustomize", str(ROOT / "infra" / name)) for name in SERVERS]
    text = "\n---\n".join(texts).replace("namespace: mp3burst\n", f"namespace: {other_namespace}\n")
    command = ("apply", "--namespace", other_namespace, "--filename", "-")
    first, again = (cluster.kubectl(*command, stdin=text).splitlines() for _ in range(2))
    assert len(first) > 12
    assert [line for line in again if not line.endswith(" unchanged")] == []


def test_every_pod_except_the_brokers_complies_with_restricted(cluster: Cluster) -> None:
    """When a Deployment is applied, the namespace warns if its pods do not comply."""
    ours: list[dict[str, Any]] = []
    brokers: list[dict[str, Any]] = []
    for each in cluster.get("deployments"):
        labels = each["spec"]["template"]["metadata"]["labels"]
        (brokers if "eventing.knative.dev/broker" in labels else ours).append(each)
        # Only a change is checked.
        each["spec"]["template"]["metadata"].setdefault("annotations", {})["mp3burst.dev/dry"] = "run"
        del each["metadata"]["resourceVersion"]
    assert len(ours) > 13

    def warnings(items: list[dict[str, Any]]) -> str:
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        return cluster.warnings(
            "apply", "--dry-run=server", "--force-conflicts", "--server-side", "--filename", "-", stdin=text
        )

    assert "violate PodSecurity" not in warnings(ours)
    assert "violate PodSecurity" in warnings(brokers), "the broker complies now: let the namespace enforce the level"
