"""The options of submit: where a study runs, what is sent beside it, and the cluster that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from study.cluster.sizing import CLAIM, DEFAULT_NODES, Place

MAX_UPLOAD_MB = 100
CLUSTER, MANIFEST, UPLOAD = "Cluster", "Manifests", "Upload"


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Where the study runs, and what of it is waited for."""

    address: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="RAY_API_SERVER_ADDRESS",
            help="The cluster's dashboard, which takes jobs; http://127.0.0.1:8265 if not given.",
            rich_help_panel=CLUSTER,
        ),
    ] = None
    wait: Annotated[
        bool,
        typer.Option(
            help="Follow the log to the end; --no-wait returns once the job is sent.", rich_help_panel=CLUSTER
        ),
    ] = True
    stop: Annotated[
        bool,
        typer.Option(
            "--stop",
            help="Interrupt the study if it runs there; what is done is kept.",
            rich_help_panel=CLUSTER,
        ),
    ] = False
    python: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The driver's interpreter on the head node; found if not given.",
            rich_help_panel=CLUSTER,
        ),
    ] = None
    extend: Annotated[
        bool,
        typer.Option(
            "--extend",
            help="Add to the study of this name in the store, although it has other content.",
            rich_help_panel=CLUSTER,
        ),
    ] = False


@dataclass(frozen=True, kw_only=True)
class UploadOptions:
    """What is sent beside the study."""

    working_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Send this folder too, as the job's working directory (for data with relative paths).",
            rich_help_panel=UPLOAD,
        ),
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Leave these files or folders of it out.", rich_help_panel=UPLOAD
        ),
    ] = None
    max_upload_mb: Annotated[
        float, typer.Option(min=0, metavar="MB", help="Refuse to send more.", rich_help_panel=UPLOAD)
    ] = MAX_UPLOAD_MB


@dataclass(frozen=True, kw_only=True)
class ManifestOptions:
    """Files that make a cluster, instead of a job on one that runs."""

    kuberay: Annotated[
        bool,
        typer.Option(
            "--kuberay",
            help="Print a RayJob (ray.io/v1) for `kubectl apply` instead.",
            rich_help_panel=MANIFEST,
        ),
    ] = False
    cluster_yaml: Annotated[
        bool,
        typer.Option(
            "--cluster-yaml",
            help="Print a cluster file for `ray up` (AWS) instead.",
            rich_help_panel=MANIFEST,
        ),
    ] = False
    image: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="Container image with revstudy.", rich_help_panel=MANIFEST),
    ] = None
    cpus_per_node: Annotated[
        int | None,
        typer.Option(
            min=1, help="CPUs of a node; 8, or what a worker needs, if not given.", rich_help_panel=MANIFEST
        ),
    ] = None
    gpus_per_node: Annotated[
        int | None,
        typer.Option(
            min=0, help="GPUs of a node; what a worker needs, if not given.", rich_help_panel=MANIFEST
        ),
    ] = None
    memory_per_node_gb: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="GB",
            help="Memory of a node; what its workers are predicted to take, if not given.",
            rich_help_panel=MANIFEST,
        ),
    ] = None
    max_nodes: Annotated[
        int, typer.Option(min=1, help="Ask for no more worker nodes.", rich_help_panel=MANIFEST)
    ] = DEFAULT_NODES
    namespace: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The namespace in Kubernetes.", rich_help_panel=MANIFEST),
    ] = None
    claim: Annotated[
        str,
        typer.Option(
            "--pvc",
            metavar="NAME",
            help="The ReadWriteMany volume claim to mount at the store's path.",
            rich_help_panel=MANIFEST,
        ),
    ] = CLAIM
    token_secret: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A Secret with Ray's token under auth_token; KubeRay makes one if not given.",
            rich_help_panel=MANIFEST,
        ),
    ] = None
    region: Annotated[
        str, typer.Option(metavar="NAME", help="The region of AWS.", rich_help_panel=MANIFEST)
    ] = Place.region
    instance_type: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="The worker nodes on AWS; the smallest that fits if not given.",
            rich_help_panel=MANIFEST,
        ),
    ] = None

    def place(self) -> Place:
        """Where the cluster runs and what it runs."""
        return Place(
            image=self.image,
            namespace=self.namespace,
            claim=self.claim,
            token_secret=self.token_secret,
            region=self.region,
            instance_type=self.instance_type,
        )
