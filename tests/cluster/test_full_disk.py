"""Tests that a pod that fills its temporary directory is evicted, before it fills the node's disk."""

from tests.cluster.cluster import Cluster, User, until

#: More than the sizeLimit of the emptyDir in knative/validate.yaml, 64 MiB.
_TOO_MUCH = "80M"


def test_pod_that_fills_its_temporary_directory_is_evicted(cluster: Cluster) -> None:
    me = User.of(cluster, gateway=False)
    assert me.call("POST", "/validate").status == 200
    pod = cluster.pods("validate")[0]
    fill = f"head -c {_TOO_MUCH} /dev/zero >/tmp/full"
    cluster.kubectl("exec", pod, "-c", "user-container", "--", "sh", "-c", fill)

    def is_evicted() -> bool:
        # Calls keep the pod from being scaled to zero before the kubelet measures its volumes, every 10 s.
        assert me.call("POST", "/validate").status == 200
        return any("exceeds the limit" in reason for reason in cluster.evictions(pod))

    until(is_evicted, "the eviction of the pod")
    assert me.call("POST", "/validate").status == 200
    until(lambda: {*cluster.pods("validate")} - {pod}, "another pod")
