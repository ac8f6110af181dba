"""The steps that change the cluster, and the waits between them."""

import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from scripts.deployment import manifests
from scripts.deployment.cluster import NAMESPACE, ROOT, CannotDeploy, Cluster, say
from scripts.deployment.manifests import Document

#: Kinds that an earlier version may have had more of.
_PRUNED = "services.serving.knative.dev,triggers.eventing.knative.dev,pingsources.sources.knative.dev"
#: What the broker is made of in RabbitMQ.
_TOPOLOGY = "queues.rabbitmq.com,exchanges.rabbitmq.com,bindings.rabbitmq.com,policies.rabbitmq.com"
_PART = f"app.kubernetes.io/part-of={NAMESPACE}"


def namespace(cluster: Cluster) -> None:
    """Make the namespace. All but the broker's own pods keep to Pod Security's ``restricted``."""
    level = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("warn", "audit")}
    labels = {"app.kubernetes.io/part-of": NAMESPACE, "pod-security.kubernetes.io/enforce": "baseline", **level}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})


def servers(cluster: Cluster, names: Sequence[str], patience: float) -> None:
    """Install servers and wait until they are ready; MAIL_IMAGE names another catcher that Mailpit's."""
    for name in names:
        documents = manifests.rendered(cluster, ROOT / "infra" / name)
        if name == "mail" and (image := os.environ.get("MAIL_IMAGE")):
            (pod,) = (each["spec"]["template"]["spec"] for each in documents if each["kind"] == "Deployment")
            pod["containers"][0]["image"] = image
        cluster.apply(*documents)
    for name in names:
        kind = "deployment" if name == "mail" else "statefulset"
        cluster.kubectl("rollout", "status", f"{kind}/{name}", f"--timeout={patience:.0f}s")


def migrate(cluster: Cluster, job: Document, patience: float) -> None:
    """Make or upgrade the tables, unless that has been done.

    Raises:
        CannotDeploy: it failed, or has not ended in time; the Job's log is in the text.
    """
    name = job["metadata"]["name"]
    old = {each["metadata"]["name"]: each for each in cluster.get("jobs", "-l", "app.kubernetes.io/name=migrations")}
    if name in old and _condition(old[name], "Failed"):
        cluster.kubectl("delete", "job", name)
    cluster.apply(job)
    deadline = time.monotonic() + patience
    while True:
        (found,) = cluster.get(f"job/{name}")
        if _condition(found, "Complete"):
            break
        if _condition(found, "Failed") or time.monotonic() > deadline:
            log = cluster.kubectl("logs", f"job/{name}", "--tail=20", check=False).strip()
            raise CannotDeploy(f"The tables could not be made:\n{log}")
        time.sleep(1)
    if gone := old.keys() - {name}:
        cluster.kubectl("delete", "job", *sorted(gone))


def apply(cluster: Cluster, documents: Sequence[Document]) -> None:
    """Apply all documents, Services by kn; what an earlier version had and this one has not goes."""
    apply_services(cluster, [document for document in documents if manifests.is_function(document)])
    cluster.apply(*(document for document in documents if not manifests.is_function(document)))
    wanted = {(document["kind"], document["metadata"]["name"]) for document in documents}
    for each in cluster.get(_PRUNED):
        kind, name = each["kind"], each["metadata"]["name"]
        if (kind, name) not in wanted and _ours(each):
            say(f"  {kind} {name} deleted")
            cluster.kubectl("delete", f"{kind.lower()}.{each['apiVersion'].partition('/')[0]}", name)


def apply_services(cluster: Cluster, services: Sequence[Document]) -> None:
    """Apply Knative Services, several at once, and wait for none."""
    with ThreadPoolExecutor(4) as pool:
        for line in pool.map(lambda document: _service(cluster, document), services):
            say(f"  {line}")


def _ours(document: Mapping[str, Any]) -> bool:
    labels = document["metadata"].get("labels", {})
    return bool(document["kind"] != "Service" or labels.get("app.kubernetes.io/part-of") == NAMESPACE)


def _service(cluster: Cluster, document: Document) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="mp3burst-") as file:
        json.dump(document, file)
        file.flush()
        said = cluster.kn("service", "apply", "--filename", file.name, "--no-wait")
    return (said.strip() or document["metadata"]["name"]).splitlines()[0]


def map_host(cluster: Cluster, host: str, patience: float) -> None:
    """Have the gateway answer to a name of one's own, and wait until it does."""
    claim = {"apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ClusterDomainClaim"}
    labels = {"app.kubernetes.io/part-of": NAMESPACE}
    cluster.apply({**claim, "metadata": {"name": host, "labels": labels}, "spec": {"namespace": NAMESPACE}})
    ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "gateway", "namespace": NAMESPACE}
    mapping = {"apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping"}
    metadata = {"name": host, "namespace": NAMESPACE, "labels": labels}
    cluster.apply({**mapping, "metadata": metadata, "spec": {"ref": ref}})
    resource = f"domainmappings.serving.knative.dev/{host}"
    cluster.kubectl("wait", "--for=condition=Ready", resource, f"--timeout={patience:.0f}s")


def gateway_url(cluster: Cluster, patience: float) -> str:
    """The URL that Knative gives the gateway.

    Raises:
        CannotDeploy: it gives none.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        for each in cluster.get("services.serving.knative.dev/gateway"):
            if url := each.get("status", {}).get("url"):
                return str(url)
        time.sleep(0.5)
    raise CannotDeploy("Knative gives the gateway no URL: look at `kubectl -n mp3burst describe ksvc gateway`.")


def await_ready(cluster: Cluster, documents: Sequence[Document], patience: float) -> None:
    """Wait until everything that says so is ready, each with its newest generation.

    Raises:
        CannotDeploy: something is not; the text has its reason.
    """
    wanted = {
        f"{document['kind'].lower()}s.{document['apiVersion'].partition('/')[0]}"
        for document in documents
        if ".knative.dev/" in document["apiVersion"] and document["kind"] != "RabbitmqBrokerConfig"
    }
    deadline = time.monotonic() + patience
    while waiting := [text for each in cluster.get(",".join(sorted(wanted))) if (text := _unready(each))]:
        if time.monotonic() > deadline:
            raise CannotDeploy(f"Not ready after {patience:.0f} s:\n" + "\n".join(f"  {each}" for each in waiting))
        time.sleep(1)


def _unready(each: Mapping[str, Any]) -> str:
    metadata, status = each["metadata"], each.get("status", {})
    ready = _condition(each, "Ready")
    if ready and status.get("observedGeneration", 0) >= metadata.get("generation", 0):
        return ""
    found: Mapping[str, Any] = next((one for one in status.get("conditions", ()) if one["type"] == "Ready"), {})
    return f"{each['kind']} {metadata['name']}: {found.get('message') or found.get('reason') or 'not seen yet'}"


def _condition(each: Mapping[str, Any], name: str) -> bool:
    conditions = each.get("status", {}).get("conditions", ())
    return any(one["type"] == name and one["status"] == "True" for one in conditions)


def delete(cluster: Cluster, documents: Sequence[Document], with_data: bool, patience: float) -> None:
    """Delete what ``apply`` made, then the servers; with ``with_data`` passwords, keys and volumes, too.

    The broker's queues go while RabbitMQ is there: without it they could not, and held the namespace for ever.

    Raises:
        CannotDeploy: they do not go in time.
    """
    first = [document for document in documents if document["kind"] != "Broker"]
    for some in (first, [document for document in documents if document["kind"] == "Broker"]):
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": some})
        cluster.kubectl("delete", "--ignore-not-found", "--filename", "-", given=text)
    deadline = time.monotonic() + patience
    while cluster.get(_TOPOLOGY):
        if time.monotonic() > deadline:
            raise CannotDeploy("The broker's queues do not go: is RabbitMQ up, and its topology operator?")
        time.sleep(1)
    cluster.kubectl("delete", "jobs,deployments,domainmappings.serving.knative.dev", "--ignore-not-found", "-l", _PART)
    claims = "clusterdomainclaims.networking.internal.knative.dev"
    cluster.kubectl("delete", claims, "--ignore-not-found", "-l", _PART)
    for folder in sorted(path.parent for path in (ROOT / "infra").glob("*/kustomization.yaml")):
        cluster.kubectl("delete", "--ignore-not-found", "--kustomize", folder)
    if with_data:
        # With pods in it that may take 600 s to end, the namespace would be looked at again only after half of that.
        cluster.kubectl("wait", "--for=delete", "pods", "--all", f"--timeout={patience:.0f}s", check=False)
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
