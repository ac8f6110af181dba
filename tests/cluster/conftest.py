"""Provides the cluster that CLUSTER_INGRESS and KUBECTL name. Without one these tests are skipped."""

import os
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster, reachable

if os.environ.get("CI") == "true" and reachable() is None:
    # .ci/run runs these tests separately, or prints that it leaves them out.
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster. Jobs that a test leaves unfinished, because it failed or meant to, do not slow down the next."""
    yield shared_cluster
    shared_cluster.delete_unfinished_jobs()


@pytest.fixture(scope="session")
def shared_cluster() -> Cluster:
    found = reachable()
    if found is None:
        pytest.skip("CLUSTER_INGRESS is not set: CONTRIBUTING.md describes how to run these tests")
    return found
