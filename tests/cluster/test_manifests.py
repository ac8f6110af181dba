"""The API server takes every manifest, and every pod of ours keeps to Pod Security's level restricted."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster

ROOT = Path(__file__).parents[2]
FOLDERS = [path.parent.relative_to(ROOT) for path in ROOT.glob("infra/**/kustomization.yaml")]


@pytest.mark.parametrize("folder", [*FOLDERS, Path("knative")], ids=str)
def test_the_api_server_takes_the_manifests_of(cluster: Cluster, folder: Path) -> None:
    text = cluster.kubectl("kustomize", str(ROOT / folder))
    said = cluster.kubectl("apply", "--dry-run=server", "--filename", "-", given=text)
    assert said.count("(server dry run)") == text.count("\nkind: ") + text.startswith("kind: ")


def test_the_api_server_takes_what_nobody_installs_by_default(cluster: Cluster) -> None:
    file = ROOT / "infra/rabbitmq/ingress.yaml"
    assert "(server dry run)" in cluster.kubectl("apply", "--dry-run=server", "--filename", str(file))


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
