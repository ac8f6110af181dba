"""The cluster that CLUSTER_INGRESS and KUBECTL name; without one these tests are skipped."""

import pytest

from tests.cluster.cluster import Cluster, reachable


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    found = reachable()
    if found is None:
        pytest.skip("CLUSTER_INGRESS names no cluster: docs/knative.md says how to have one")
    return found
