"""The cluster that CLUSTER_INGRESS and KUBECTL name; without one these tests are skipped."""

import os

import pytest

from tests.cluster.cluster import Cluster, reachable

if os.environ.get("CI") == "true" and reachable() is None:
    # The gate runs them by themselves, after the others, or says that it does not.
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    found = reachable()
    if found is None:
        pytest.skip("CLUSTER_INGRESS names no cluster: docs/knative.md says how to have one")
    return found
