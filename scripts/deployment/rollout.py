"""Changes the cluster step by step and waits in between."""

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

#: Kinds of which an earlier version may have deployed more.
_PRUNED = "services.serving.knative.dev,triggers.eventing.knative.dev,pingsources.sources.knative.dev"
#: The broker's objects in RabbitMQ.
_TOPOLOGY = "queues.rabbitmq.com,exchanges.rabbitmq.com,bindings.rabbitmq.com,policies.rabbitmq.com"
_PART = f"{manifests.PART_OF}={NAMESPACE}"


def namespace(cluster: Cluster) -> None:
    """Creates the namespace. All pods except the broker's comply with Pod Security's level ``restricted``."""
    level = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("warn", "audit")}
    labels = {manifests.PART_OF: NAMESPACE, "pod-security.kubernetes.io/enforce": "baseline", **level}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})


def servers(cluster: Cluster, names: Sequence[str], timeout: float) -> None:
    """Installs servers and waits until they are ready; MAIL_IMAGE replaces the image of Mailpit."""
    for name in names:
        documents = manifests.rendered(cluster, ROOT / "infra" / name)
        if name == "mail" and (image := os.environ.get("MAIL_IMAGE")):
            (pod,) = (each["spec"]["template"]["spec"] for each in documents if each["kind"] == "Deployment")
            pod["containers"][0]["image"] = image
        cluster.apply(*documents)
    for name in names:
        kind = "deployment" if name == "mail" else "statefulset"
        cluster.kubectl("rollout", "status", f"{kind}/{name}", f"--timeout={timeout:.0f}s")


def migrate(cluster: Cluster, job: Document, timeout: float) -> None:
    """Creates or upgrades the tables, unless that has been done.

    Raises:
        CannotDeploy: it failed or timed out; the text has the Job's log.
    """
    name = job["metadata"]["name"]
    old = {each["metadata"]["name"]: each for each in cluster.get("jobs", "-l", "app.kubernetes.io/name=migrations")}
    if name in old and _condition(old[name], "Failed"):
        cluster.kubectl("delete", "job", name)
    cluster.apply(job)
    deadline = time.monotonic() + timeout
    while True:
        (found,) = cluster.get(f"job/{name}")
        if _condition(found, "Complete"):
            break
        if _condition(found, "Failed") or time.monotonic() > deadline:
            log = cluster.kubectl("logs", f"job/{name}", "--tail=20", check=False).strip()
            raise CannotDeploy(f"The tables could not be created:\n{log}")
        time.sleep(1)
    if outdated := old.keys() - {name}:
        cluster.kubectl("delete", "job", *sorted(outdated))


def has_tables(cluster: Cluster, tables: str) -> bool:
    """Returns whether the cluster has the tables and rights of these migrations, given by their digest."""
    jobs = cluster.get("jobs", "-l", f"{manifests.TABLES}={tables}")
    return any(_condition(job, "Complete") for job in jobs)


def apply(cluster: Cluster, documents: Sequence[Document]) -> None:
    """Applies all documents and deletes what only an earlier version had."""
    apply_only(cluster, documents)
    wanted = {_name(document) for document in documents}
    others = [each for each in cluster.get(_PRUNED) if _name(each) not in wanted]
    services = {_name(each)[1] for each in others if each["kind"] == "Service" and _is_ours(each)}
    # Triggers and PingSources of earlier versions have no label, but their Service, which is therefore deleted last.
    pruned = [each for each in others if _is_ours(each) or _target(each) in services]
    for each in sorted(pruned, key=lambda each: bool(each["kind"] == "Service")):
        kind, name = _name(each)
        say(f"  {kind} {name} deleted")
        cluster.kubectl("delete", f"{kind.lower()}.{each['apiVersion'].partition('/')[0]}", name)


def apply_only(cluster: Cluster, documents: Sequence[Document]) -> None:
    """Applies the documents, Services with kn, and leaves everything else as it is."""
    apply_services(cluster, [document for document in documents if manifests.is_function(document)])
    cluster.apply(*(document for document in documents if not manifests.is_function(document)))


def apply_services(cluster: Cluster, services: Sequence[Document]) -> None:
    """Applies Knative Services, several at once, without waiting for them."""
    with ThreadPoolExecutor(4) as pool:
        for line in pool.map(lambda document: _service(cluster, document), services):
            say(f"  {line}")


def _is_ours(document: Mapping[str, Any]) -> bool:
    return bool(document["metadata"].get("labels", {}).get(manifests.PART_OF) == NAMESPACE)


def _target(document: Mapping[str, Any]) -> str | None:
    """Returns the Service that a Trigger or a PingSource calls."""
    spec = document.get("spec", {})
    ref = (spec.get("subscriber") or spec.get("sink") or {}).get("ref") or {}
    return ref.get("name") if ref.get("kind") == "Service" else None


def _service(cluster: Cluster, document: Document) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="mp3burst-") as file:
        json.dump(document, file)
        file.flush()
        output = cluster.kn("service", "apply", "--filename", file.name, "--no-wait")
    return (output.strip() or document["metadata"]["name"]).splitlines()[0]


def map_host(cluster: Cluster, host: str, timeout: float) -> None:
    """Maps a host name to the gateway and waits until it is ready."""
    claim = {"apiVersion": "networking.internal.knative.dev/v1alpha1", "kind": "ClusterDomainClaim"}
    labels = {manifests.PART_OF: NAMESPACE}
    cluster.apply({**claim, "metadata": {"name": host, "labels": labels}, "spec": {"namespace": NAMESPACE}})
    ref = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "gateway", "namespace": NAMESPACE}
    mapping = {"apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping"}
    metadata = {"name": host, "namespace": NAMESPACE, "labels": labels}
    cluster.apply({**mapping, "metadata": metadata, "spec": {"ref": ref}})
    resource = f"domainmappings.serving.knative.dev/{host}"
    cluster.kubectl("wait", "--for=condition=Ready", resource, f"--timeout={timeout:.0f}s")


def gateway_url(cluster: Cluster, timeout: float) -> str:
    """Returns the URL that Knative assigns to the gateway.

    Raises:
        CannotDeploy: it assigns none in time.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for each in cluster.get("services.serving.knative.dev/gateway"):
            if url := each.get("status", {}).get("url"):
                return str(url)
        time.sleep(0.5)
    raise CannotDeploy("Knative assigns no URL to the gateway: run `kubectl -n mp3burst describe ksvc gateway`.")


def await_ready(cluster: Cluster, documents: Sequence[Document], timeout: float) -> None:
    """Waits until each of the documents that reports a state is ready in its newest generation.

    Raises:
        CannotDeploy: one is not ready in time; the text has its reason.
    """
    wanted = [
        document
        for document in documents
        if ".knative.dev/" in document["apiVersion"] and document["kind"] != "RabbitmqBrokerConfig"
    ]
    kinds = {f"{document['kind'].lower()}s.{document['apiVersion'].partition('/')[0]}" for document in wanted}
    names = {_name(document) for document in wanted}
    deadline = time.monotonic() + timeout

    def unready() -> list[str]:
        found = [each for each in cluster.get(",".join(sorted(kinds))) if _name(each) in names]
        missing = names - {_name(each) for each in found}
        texts = [text for each in found if (text := _unready(each))]
        return [*texts, *(f"{kind} {name}: not there yet" for kind, name in sorted(missing))]

    while waiting := unready():
        if time.monotonic() > deadline:
            raise CannotDeploy(f"Not ready after {timeout:.0f} s:\n" + "\n".join(f"  {each}" for each in waiting))
        time.sleep(1)


def _name(document: Mapping[str, Any]) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]


def _unready(each: Mapping[str, Any]) -> str:
    metadata = each["metadata"]
    status = each.get("status", {})
    ready = _condition(each, "Ready")
    if ready and status.get("observedGeneration", 0) >= metadata.get("generation", 0):
        return ""
    found: Mapping[str, Any] = next((one for one in status.get("conditions", ()) if one["type"] == "Ready"), {})
    return f"{each['kind']} {metadata['name']}: {found.get('message') or found.get('reason') or 'no status yet'}"


def _condition(each: Mapping[str, Any], name: str) -> bool:
    conditions = each.get("status", {}).get("conditions", ())
    return any(one["type"] == name and one["status"] == "True" for one in conditions)


def delete(cluster: Cluster, documents: Sequence[Document], with_data: bool, timeout: float) -> None:
    """Deletes what ``apply`` created, then the servers; with ``with_data`` also passwords, keys and volumes.

    The broker's queues are deleted while RabbitMQ runs. Without it they would block the namespace's deletion forever.

    Raises:
        CannotDeploy: the queues are not deleted in time.
    """
    first = [document for document in documents if document["kind"] != "Broker"]
    for items in (first, [document for document in documents if document["kind"] == "Broker"]):
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        cluster.kubectl("delete", "--ignore-not-found", "--filename", "-", stdin=text)
    deadline = time.monotonic() + timeout
    while cluster.get(_TOPOLOGY):
        if time.monotonic() > deadline:
            raise CannotDeploy(
                "The broker's queues are not deleted: check that RabbitMQ and its topology operator run."
            )
        time.sleep(1)
    cluster.kubectl("delete", "jobs,deployments,domainmappings.serving.knative.dev", "--ignore-not-found", "-l", _PART)
    claims = "clusterdomainclaims.networking.internal.knative.dev"
    cluster.kubectl("delete", claims, "--ignore-not-found", "-l", _PART)
    for folder in sorted(path.parent for path in (ROOT / "infra").glob("*/kustomization.yaml")):
        cluster.kubectl("delete", "--ignore-not-found", "--kustomize", folder)
    if with_data:
        # Pods may take 600 s to end. Kubernetes would check a namespace with such pods again only after half of that.
        cluster.kubectl("wait", "--for=delete", "pods", "--all", f"--timeout={timeout:.0f}s", check=False)
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
