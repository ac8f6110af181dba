"""./scripts/deploy on a cluster that it has been run on."""

import os
import shlex
import subprocess

import pytest

from tests.cluster.cluster import Cluster

_KINDS = "ksvc,revisions,triggers,brokers,deployments,jobs,configmaps,secrets,networkpolicies"


def _versions(cluster: Cluster) -> dict[str, object]:
    """What is there, each with what its owner wanted: a change of its state alone counts for nothing."""
    return {
        f"{each['kind']} {each['metadata']['name']}": (
            each["metadata"]["uid"],
            each["metadata"].get("generation") or each["metadata"]["resourceVersion"],
        )
        for each in cluster.get(_KINDS)
        if "ownerReferences" not in each["metadata"] or each["kind"] == "Revision"
    }


def test_again_it_changes_nothing(cluster: Cluster) -> None:
    deploy = os.environ.get("CLUSTER_DEPLOY")
    if not deploy:
        pytest.skip("CLUSTER_DEPLOY names no command that deploys there")
    before = _versions(cluster)
    assert len(before) > 40
    said = subprocess.run(shlex.split(deploy), check=True, capture_output=True, text=True).stdout
    assert _versions(cluster) == before
    assert "created" not in said
    assert "configured" not in said
