"""Provides the cluster that CLUSTER_INGRESS and KUBECTL name. Without one these tests are skipped."""

import os

import pytest

from tests.cluster.cluster import Cluster, reachable

if os.environ.get("CI") == "true" and reachable() is None:
    # .ci/run runs these tests separately, or prints that it leaves them out.
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    found = reachable()
    if found is None:
        pytest.skip("CLUSTER_INGRESS is not set: CONTRIBUTING.md describes how to run these tests")
    return found
