"""Tests a second run of ./scripts/deploy."""

import os
import shlex
import subprocess

import pytest

from tests.cluster.cluster import Cluster

_KINDS = "ksvc,revisions,triggers,brokers,deployments,jobs,cronjobs,configmaps,secrets,networkpolicies"


def _versions(cluster: Cluster) -> dict[str, object]:
    """Returns the version of every object's specification; a change of its status does not matter."""
    return {
        f"{each['kind']} {each['metadata']['name']}": (
            each["metadata"]["uid"],
            each["metadata"].get("generation") or each["metadata"]["resourceVersion"],
        )
        for each in cluster.get(_KINDS)
        if "ownerReferences" not in each["metadata"] or each["kind"] == "Revision"
    }


def test_second_run_changes_nothing(cluster: Cluster) -> None:
    deploy = os.environ.get("CLUSTER_DEPLOY")
    if not deploy:
        pytest.skip("CLUSTER_DEPLOY, the command that deploys mp3burst, is not set")
    before = _versions(cluster)
    assert len(before) > 40
    for command in (deploy, f"{deploy} --only convert,encode"):
        output = subprocess.run(shlex.split(command), check=True, capture_output=True, text=True).stdout
        assert _versions(cluster) == before
        assert "created" not in output
        assert "configured" not in output
