"""The manifests of an environment, filled in: images, and a stamp of the settings that each Service reads."""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from scripts.deployment.cluster import NAMESPACE, ROOT, Cluster

Document = dict[str, Any]
ENVIRONMENTS = ROOT / "infra/environments"


def environments() -> list[str]:
    """The names of what ``--environment`` may be."""
    return sorted(path.parent.name for path in ENVIRONMENTS.glob("*/kustomization.yaml"))


def rendered(cluster: Cluster, folder: Path) -> list[Document]:
    """Every document of a kustomization."""
    text = cluster.kubectl("kustomize", folder)
    return [document for document in yaml.safe_load_all(text) if document]


def is_function(document: Mapping[str, Any]) -> bool:
    """Whether it is a Knative Service."""
    return bool(document["kind"] == "Service" and document["apiVersion"].startswith("serving.knative.dev/"))


def images(documents: Iterable[Document]) -> set[str]:
    """The short names of the project's own images that the documents run."""
    return {short for document in documents for container in _containers(document) if (short := _short(container))}


def _containers(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    template = document.get("spec", {}).get("template", {})
    containers: list[dict[str, Any]] = template.get("spec", {}).get("containers", [])
    return containers


def _short(container: Mapping[str, Any]) -> str:
    owner, _, name = container["image"].rpartition("/")
    return str(name.partition(":")[0]) if owner == "mp3burst" else ""


def filled(documents: Iterable[Document], images: Mapping[str, str], stamps: Mapping[str, str]) -> list[Document]:
    """The documents with their images, and in each Knative Service a digest of the settings it reads.

    A ConfigMap or a Secret that changes starts no new revision: the digest does.

    Args:
        documents: of ``rendered``.
        images: the full name of each image by its short one.
        stamps: what changes with each ConfigMap and Secret, by its name.
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
    """What changes when a ConfigMap or Secret of the namespace does, by its name; it tells nothing about a secret."""
    return {
        each["metadata"]["name"]: f"{each['metadata']['uid']} {each['metadata']['resourceVersion']}"
        for each in cluster.get("configmaps,secrets")
    }


def migrations(image: str, stamp: str) -> Document:
    """The Job that makes or upgrades the tables; its name says how, of which image, on which database.

    Args:
        image: of migrations.
        stamp: what changes with the Secret ``database``.
    """
    labels = {"app.kubernetes.io/name": "migrations", "app.kubernetes.io/part-of": NAMESPACE}
    container = {
        "name": "migrations",
        "image": image,
        "envFrom": [{"secretRef": {"name": "database"}}],
        "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - in the container
    }
    pod = {
        # A pod for each try: only such a Job can be told which exit status is the last word.
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    hopeless = {"containerName": "migrations", "operator": "In", "values": [2]}
    spec = {
        # The database may still be starting: tried again until then.
        "backoffLimit": 8,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": hopeless}]},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    # Of the whole, since a Job that is there cannot be changed.
    digest = hashlib.sha256(f"{json.dumps(spec)} {stamp}".encode()).hexdigest()[:10]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"migrations-{digest}", "namespace": NAMESPACE, "labels": labels},
        "spec": spec,
    }
