"""Reads the manifests of an environment and fills in images and a digest of the settings that each Service reads."""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from scripts.deployment.cluster import NAMESPACE, ROOT, CannotDeploy, Cluster

Document = dict[str, Any]
#: The label of the Job that has created the tables.
TABLES = f"{NAMESPACE}.dev/tables"
#: The label of all that is mp3burst's.
PART_OF = "app.kubernetes.io/part-of"
ENVIRONMENTS = ROOT / "infra/environments"


def environments() -> list[str]:
    """Returns the values that ``--environment`` accepts."""
    return sorted(path.parent.name for path in ENVIRONMENTS.glob("*/kustomization.yaml"))


def rendered(cluster: Cluster, folder: Path) -> list[Document]:
    """Returns every document of a kustomization; Triggers and PingSources, also an operator's own, with PART_OF.

    A later run deletes what has the label and is no longer in the kustomization.
    """
    text = cluster.kubectl("kustomize", folder)
    documents: list[Document] = [document for document in yaml.safe_load_all(text) if document]
    for document in documents:
        if document["kind"] in ("Trigger", "PingSource"):
            document["metadata"].setdefault("labels", {}).setdefault(PART_OF, NAMESPACE)
    return documents


def is_function(document: Mapping[str, Any]) -> bool:
    """Returns whether a document is a Knative Service."""
    return bool(document["kind"] == "Service" and document["apiVersion"].startswith("serving.knative.dev/"))


def of_functions(documents: Iterable[Document], functions: Iterable[str]) -> list[Document]:
    """Returns the Services of some functions, or the CronJob of sweep, and the Triggers that call them.

    Raises:
        CannotDeploy: there is no such function.
    """
    wanted = set(functions)
    found = [
        each
        for each in documents
        if (_runs(each) and each["metadata"]["name"] in wanted)
        or (each["kind"] == "Trigger" and each["spec"]["subscriber"]["ref"]["name"] in wanted)
    ]
    if missing := wanted - {each["metadata"]["name"] for each in found if _runs(each)}:
        raise CannotDeploy(f"No function is called {', '.join(sorted(missing))}: the files of knative/ have the names.")
    return found


def _runs(document: Mapping[str, Any]) -> bool:
    return is_function(document) or document["kind"] == "CronJob"


def images(documents: Iterable[Document]) -> set[str]:
    """Returns the short names of mp3burst's own images in the documents."""
    return {short for document in documents for container in _containers(document) if (short := _short(container))}


def _containers(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    spec = document.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
    containers: list[dict[str, Any]] = template.get("spec", {}).get("containers", [])
    return containers


def _short(container: Mapping[str, Any]) -> str:
    owner, _, name = container["image"].rpartition("/")
    return str(name.partition(":")[0]) if owner == "mp3burst" else ""


def filled(documents: Iterable[Document], images: Mapping[str, str], stamps: Mapping[str, str]) -> list[Document]:
    """Returns the documents with their images and, in each Knative Service, a digest of the settings it reads.

    Knative starts no new revision when a ConfigMap or a Secret changes. It does when the digest changes.

    Args:
        documents: the result of ``rendered``.
        images: the full name of each image by its short name.
        stamps: the version of each ConfigMap and Secret by its name.
    """
    done = []
    for document in map(copy.deepcopy, documents):
        for container in _containers(document):
            container["image"] = images.get(_short(container), container["image"])
            if is_function(document):
                refs = [each.get("configMapRef") or each["secretRef"] for each in container.get("envFrom", ())]
                text = " ".join(f"{ref['name']} {stamps.get(ref['name'], '')}" for ref in refs)
                digest = hashlib.sha256(text.encode()).hexdigest()[:16]
                document["spec"]["template"]["metadata"]["annotations"]["mp3burst.dev/settings"] = digest
        done.append(document)
    return done


def stamps(cluster: Cluster) -> dict[str, str]:
    """Returns the version of each ConfigMap and Secret by its name; it reveals nothing about the contents."""
    return {
        each["metadata"]["name"]: f"{each['metadata']['uid']} {each['metadata']['resourceVersion']}"
        for each in cluster.get("configmaps,secrets")
    }


def migrations(image: str, stamp: str, tables: str) -> Document:
    """Returns the Job that creates or upgrades the tables and users; its name depends on its contents and the database.

    Args:
        image: the image of migrations.
        stamp: the version of the Secret ``database-owner``.
        tables: the digest of the migrations, a label of the Job: ``scripts/deploy --only`` compares it.
    """
    labels = {"app.kubernetes.io/name": "migrations", PART_OF: NAMESPACE}
    container = {
        "name": "migrations",
        "image": image,
        "envFrom": [{"secretRef": {"name": "database-owner"}}],
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - in the container
    }
    pod = {
        # One pod per attempt: podFailurePolicy requires it.
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
    }
    final = {"containerName": "migrations", "operator": "In", "values": [2]}
    spec = {
        # The database may still be starting.
        "backoffLimit": 8,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": final}]},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    # A Job cannot be changed once it exists, so a change of anything needs a new name.
    digest = hashlib.sha256(f"{json.dumps(spec)} {stamp}".encode()).hexdigest()[:10]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"migrations-{digest}",
            "namespace": NAMESPACE,
            "labels": {**labels, TABLES: tables},
        },
        "spec": spec,
    }
