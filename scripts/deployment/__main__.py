"""Deploys mp3burst to a cluster with Knative: ``scripts/deploy``. A second run applies only what changed."""

import argparse
import os
import sys
import time
from collections.abc import Sequence

from scripts.deployment import manifests, rollout, settings
from scripts.deployment.cluster import CannotDeploy, Cluster, say
from scripts.deployment.images import Builder, in_use, names, tables


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 1 if something is missing or failed."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.only is not None and (args.delete or not _names_of(args.only)):
        parser.error("--only needs the names of functions and does not go with --delete")
    begin = time.monotonic()
    try:
        cluster = Cluster()
        cluster.check()
        if args.delete:
            documents = manifests.rendered(cluster, manifests.ENVIRONMENTS / args.environment)
            rollout.delete(cluster, documents, args.with_data, args.timeout)
            say("Deleted." if args.with_data else "Deleted. Passwords, keys and volumes were kept.")
            return 0
        if args.only is not None:
            _deploy_only(cluster, args)
        else:
            _deploy(cluster, args)
    except CannotDeploy as error:
        print(error, file=sys.stderr)
        return 1
    say(f"Ready after {time.monotonic() - begin:.0f} s.")
    return 0


def _deploy(cluster: Cluster, args: argparse.Namespace) -> None:
    if args.mail:
        settings.use_catcher()
    settings.check(cluster)
    documents = manifests.rendered(cluster, manifests.ENVIRONMENTS / args.environment)
    images = names({*manifests.images(documents), "migrations"}, args.registry, args.tag)
    rollout.namespace(cluster)
    wanted = _names_of(args.servers)
    installed = settings.servers(cluster, wanted)
    if not args.tag:
        images |= _build(cluster, images)

    say("Settings")
    (gateway,) = manifests.filled([each for each in documents if each["metadata"]["name"] == "gateway"], images, {})
    public_url = os.environ.get("PUBLIC_URL") or (f"http://{args.host}" if args.host else "")
    if not public_url:
        # The gateway needs no settings, and the settings need its URL.
        rollout.apply_services(cluster, [gateway])
        public_url = rollout.gateway_url(cluster, args.timeout)
    settings.make(cluster, wanted, public_url, args.host)
    if servers := [*installed, *(["mail"] if args.mail else [])]:
        say(f"Servers: {', '.join(servers)}")
        rollout.servers(cluster, servers, args.timeout)
    stamps = manifests.stamps(cluster)
    say("Database tables")
    rollout.migrate(
        cluster, manifests.migrations(images["migrations"], stamps["database-owner"], tables()), args.timeout
    )
    say("Functions")
    documents = manifests.filled(documents, images, stamps)
    rollout.apply(cluster, documents)
    say("Waiting for everything to be ready")
    rollout.await_ready(cluster, documents, args.timeout)
    if args.host:
        rollout.map_host(cluster, args.host, args.timeout)
    say("")
    for each in sorted(cluster.get("services.serving.knative.dev"), key=lambda each: str(each["metadata"]["name"])):
        url = each["status"]["url"]
        if ".svc." not in url:
            say(f"{each['metadata']['name']:10}{url}")
    say(f"{'links':10}{settings.public_url(cluster)}")


def _deploy_only(cluster: Cluster, args: argparse.Namespace) -> None:
    """Deploys some functions, with their Triggers and nothing else.

    Raises:
        CannotDeploy: there is no such function, or the cluster's tables are those of another version.
    """
    documents = manifests.of_functions(
        manifests.rendered(cluster, manifests.ENVIRONMENTS / args.environment), _names_of(args.only)
    )
    if not rollout.has_tables(cluster, tables()):
        raise CannotDeploy("The cluster does not have this version's tables: run scripts/deploy without --only once.")
    images = names(manifests.images(documents), args.registry, args.tag)
    if not args.tag:
        images |= _build(cluster, images)
    say("Functions")
    rollout.apply_only(cluster, manifests.filled(documents, images, manifests.stamps(cluster)))
    say("Waiting for everything to be ready")
    rollout.await_ready(cluster, documents, args.timeout)


def _names_of(text: str) -> list[str]:
    """Returns the names in a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _build(cluster: Cluster, images: dict[str, str]) -> dict[str, str]:
    """Builds the images that the cluster does not run yet; returns the names to use, with digests where known."""
    running = [
        each["spec"]["template"]["spec"] for each in cluster.get("services.serving.knative.dev,jobs,deployments")
    ]
    found = in_use(images, (container["image"] for spec in running for container in spec["containers"]))
    missing = {name: image for name, image in images.items() if name not in found}
    if missing:
        say("Images")
    return found | (Builder().build_all(missing) if missing else {})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/deploy",
        description="Deploys mp3burst to the cluster that kubectl points at. A second run applies only what changed. "
        "Variables of infra/env.example that are set are written to the ConfigMap and the Secrets.",
    )
    parser.add_argument(
        "--environment",
        choices=manifests.environments(),
        default="production",
        help="one of infra/environments (%(default)s)",
    )
    parser.add_argument(
        "--registry",
        default="dev.local/mp3burst",
        help="where to push and pull images, as REGISTRY/NAME:TAG (%(default)s)",
    )
    parser.add_argument("--tag", help="use the registry's images with this tag and build none")
    parser.add_argument(
        "--with",
        dest="servers",
        default="rabbitmq,mongodb,postgresql",
        metavar="SERVERS",
        help="servers to install unless AMQP_URL, MONGO_URI or DATABASE_URL is set (%(default)s; or mysql)",
    )
    parser.add_argument(
        "--only",
        metavar="FUNCTIONS",
        help="deploy only these functions and their Triggers, such as convert,encode; settings, tables and all else "
        "stay as they are",
    )
    parser.add_argument(
        "--mail", choices=["catcher"], help="install a mail server that shows all emails and delivers none"
    )
    parser.add_argument("--host", help="your host name for the gateway; links start with it unless PUBLIC_URL is set")
    parser.add_argument(
        "--timeout", type=float, default=600, metavar="SECONDS", help="limit of each wait (%(default)s)"
    )
    parser.add_argument("--delete", action="store_true", help="delete everything except passwords, keys and volumes")
    parser.add_argument(
        "--with-data", action="store_true", help="with --delete: delete them too; servers elsewhere keep their data"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
