"""Clusters for a study as text: a RayJob for KubeRay, and a cluster file for `ray up`.

Nothing secret is written. The token is a Secret that KubeRay makes, or one that is referred to by its name;
for `ray up` it is the user's own file, referred to by its path.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
from importlib import metadata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import yaml

from study.cluster.sizing import HEAD_CPUS, HEAD_MEMORY_BYTES, Place, Sizing
from study.cluster.submission import submission_id
from study.errors import StudyError

if TYPE_CHECKING:
    from study.spec.study import Study

OBJECT_STORE_BYTES = 200_000_000
"""Only settings and rows travel between processes."""
STUDY_MOUNT = "/etc/revstudy"
ANNOTATION = "revstudy/study"
MAX_ANNOTATION_BYTES = 200_000
"""Kubernetes takes 256 KiB of annotations."""

AWS_CPU = {2: "m6i.large", 4: "m6i.xlarge", 8: "m6i.2xlarge", 16: "m6i.4xlarge", 32: "m6i.8xlarge"}
AWS_MEMORY = {2: "r6i.large", 4: "r6i.xlarge", 8: "r6i.2xlarge", 16: "r6i.4xlarge", 32: "r6i.8xlarge"}
AWS_GPU = {1: "g5.2xlarge", 4: "g5.12xlarge", 8: "g5.48xlarge"}
"""Instance types by CPUs (4 and 8 GiB for each) and by GPUs (A10G with 24 GB)."""
AWS_GPU_CPUS = {1: 8, 4: 48, 8: 192}
GIB_PER_CPU, MUCH_GIB_PER_CPU = 4, 8


def kuberay_job(study: Study, store: str, size: Sizing, place: Place) -> str:
    """Return a RayJob (ray.io/v1) that trains the study on a cluster of its own, as one YAML document.

    The study travels as an annotation of the head's pod, which Kubernetes shows to the container as a file.

    Raises:
        StudyError: The store cannot be mounted, or the study is too large for an annotation.
    """
    path = mounted(store)
    content = json.dumps(study.to_dict(), allow_nan=False)
    if len(content.encode()) > MAX_ANNOTATION_BYTES:
        raise StudyError(
            value=f"{len(content)} characters",
            rule=f"a study in a RayJob has at most {MAX_ANNOTATION_BYTES} bytes",
            remedy="shorten its lists, or start a cluster and use `revstudy submit --address`",
        )
    head = _container("ray-head", size, place, cpus=HEAD_CPUS, gib=_gib(HEAD_MEMORY_BYTES))
    head["ports"] = [
        {"containerPort": port, "name": name}
        for port, name in ((6379, "gcs-server"), (8265, "dashboard"), (10001, "client"))
    ]
    worker = _container("ray-worker", size, place, cpus=size.cpus, gib=size.memory_gib, gpus=size.gpus)
    head_pod: dict[str, Any] = {"containers": [head], "volumes": []}
    worker_pod: dict[str, Any] = {"containers": [worker]}
    if "://" not in path:
        volume = {"name": "store", "persistentVolumeClaim": {"claimName": place.claim}}
        head_pod["volumes"].append(volume)
        worker_pod["volumes"] = [volume]
        for container in (head, worker):
            container["volumeMounts"] = [{"name": "store", "mountPath": path}]
    head_pod["volumes"].append(
        {
            "name": "study",
            "downwardAPI": {
                "items": [
                    {"path": "study.yaml", "fieldRef": {"fieldPath": f"metadata.annotations['{ANNOTATION}']"}}
                ]
            },
        }
    )
    head.setdefault("volumeMounts", []).append({"name": "study", "mountPath": STUDY_MOUNT, "readOnly": True})
    run = ["python", "-m", "study.cli", "run", f"{STUDY_MOUNT}/study.yaml", "--store", path]
    start = {"object-store-memory": str(OBJECT_STORE_BYTES)}
    meta: dict[str, Any] = {
        "name": _kubernetes_name(study, store),
        "labels": {"app.kubernetes.io/name": "revstudy"},
    }
    if place.namespace:
        meta["namespace"] = place.namespace
    token = {"mode": "token", **({"secretName": place.token_secret} if place.token_secret else {})}
    manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": meta,
        "spec": {
            "entrypoint": shlex.join(run),
            "runtimeEnvYAML": yaml.safe_dump({"env_vars": job_variables()}, sort_keys=True),
            "submissionMode": "K8sJobMode",
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 600,
            "rayClusterSpec": {
                "rayVersion": metadata.version("ray"),
                "authOptions": token,
                "headGroupSpec": {
                    "rayStartParams": {**start, "num-cpus": "0"},
                    "template": {"metadata": {"annotations": {ANNOTATION: content}}, "spec": head_pod},
                },
                "workerGroupSpecs": [
                    {
                        "groupName": "workers",
                        "replicas": size.nodes,
                        "minReplicas": size.nodes,
                        "maxReplicas": size.nodes,
                        "rayStartParams": dict(start),
                        "template": {"spec": worker_pod},
                    }
                ],
            },
        },
    }
    notes = [
        f"{study.name}: {size}.",
        "kubectl apply -f FILE; to go on after it ended, kubectl delete -f FILE and apply it again.",
        f"Ray's token is in the Secret {place.token_secret} (KubeRay 1.6 or newer)."
        if place.token_secret
        else "Ray's token is made by KubeRay (1.5.1 or newer).",
    ]
    if "://" not in path:
        notes.append(f"The claim {place.claim} must exist and be ReadWriteMany; it is mounted at {path}.")
    if place.image is None:
        notes += [
            "The image must hold revstudy and its dependencies: build one and pass --image, such as",
            *_dockerfile(),
        ]
    return _document(manifest, notes)


def cluster_file(study: Study, store: str, size: Sizing, place: Place) -> str:
    """Return a cluster file for `ray up` on AWS, for `submit` to send the study to.

    Raises:
        StudyError: No instance type holds a worker node.
    """
    start = (
        "export RAY_AUTH_MODE=token; ray stop; ray start {role} --object-manager-port=8076 "
        f"--object-store-memory={OBJECT_STORE_BYTES}"
    )
    content: dict[str, Any] = {
        "cluster_name": _kubernetes_name(study, store),
        "provider": {"type": "aws", "region": place.region, "cache_stopped_nodes": False},
        "auth": {"ssh_user": "ubuntu"},
        "docker": {"image": image_of(place, size), "container_name": "revstudy"},
        "max_workers": size.nodes,
        "idle_timeout_minutes": 15,
        "available_node_types": {
            "head": {
                # Without CPUs for trials: it runs the driver and the dashboard.
                "resources": {"CPU": 0},
                "node_config": {"InstanceType": "m6i.large"},
            },
            "worker": {
                "min_workers": size.nodes,
                "max_workers": size.nodes,
                "resources": {"CPU": size.cpus, **({"GPU": size.gpus} if size.gpus else {})},
                "node_config": {"InstanceType": place.instance_type or _instance_type(size)},
            },
        },
        "head_node_type": "head",
        # The token of this user, copied when the cluster starts; its content is not in this file.
        "file_mounts": {"/home/ray/.ray/auth_token": "~/.ray/auth_token"},
        "setup_commands": [] if place.image else [f"pip install {shlex.join(requirements())}"],
        # The dashboard listens on the head's loopback alone; `ray dashboard` forwards it.
        "head_start_ray_commands": [
            start.format(role="--head --port=6379 --dashboard-host=127.0.0.1")
            + " --autoscaling-config=~/ray_bootstrap_config.yaml"
        ],
        "worker_start_ray_commands": [start.format(role="--address=$RAY_HEAD_IP:6379")],
    }
    notes = [
        f"{study.name}: {size}.",
        "ray get-auth-token --generate; ray up FILE; ray dashboard FILE (which stays there), and elsewhere",
        f"revstudy submit STUDY --store {store} --address http://127.0.0.1:8265; in the end ray down FILE",
    ]
    if "://" not in store:
        notes.append(
            f"Every node must reach {store}: mount shared storage there in setup_commands, or pass a --store "
            "on object storage. `submit` checks it."
        )
    return _document(content, notes)


def mounted(store: str) -> str:
    """Where the store is in a container: as given if that is a URL or absolute, else below ``/mnt``."""
    if "://" in store:
        return store
    path = PurePosixPath(store)
    return str(path if path.is_absolute() else PurePosixPath("/mnt") / path)


def job_variables() -> dict[str, str]:
    """The environment of a job's processes."""
    from study.cluster.session import ENVIRONMENT

    return {**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}


def requirements() -> list[str]:
    """What this installation depends on, in the versions that are installed here, Ray with its extras."""
    found = {}
    for line in metadata.requires("revstudy") or ():
        match = re.match(r"([A-Za-z0-9_.-]+)(\[[^\]]*\])?", line)
        if match and "extra ==" not in line:
            release = metadata.version(match[1]).partition("+")[0]
            found[match[1]] = f"{match[1]}{match[2] or ''}=={release}"
    return sorted(found.values())


def image_of(place: Place, size: Sizing) -> str:
    """The image as given, or Ray's own of this version and Python."""
    python = "".join(platform.python_version_tuple()[:2])
    return place.image or f"rayproject/ray:{metadata.version('ray')}-py{python}{'-gpu' if size.gpus else ''}"


def _container(
    name: str, size: Sizing, place: Place, *, cpus: int, gib: int, gpus: int = 0
) -> dict[str, Any]:
    amount: dict[str, Any] = {"cpu": str(cpus), "memory": f"{gib}Gi"}
    if gpus:
        amount["nvidia.com/gpu"] = str(gpus)
    return {
        "name": name,
        "image": image_of(place, size),
        "resources": {"limits": amount, "requests": dict(amount)},
    }


def _dockerfile() -> list[str]:
    python = "".join(platform.python_version_tuple()[:2])
    return [
        f"    FROM rayproject/ray:{metadata.version('ray')}-py{python}",
        "    COPY . /home/ray/revstudy",
        "    RUN pip install -c /home/ray/revstudy/constraints.txt /home/ray/revstudy",
    ]


def _instance_type(size: Sizing) -> str:
    if size.gpus:
        for gpus, name in AWS_GPU.items():
            if gpus >= size.gpus and AWS_GPU_CPUS[gpus] >= size.cpus:
                return name
    else:
        for each, types in ((GIB_PER_CPU, AWS_CPU), (MUCH_GIB_PER_CPU, AWS_MEMORY)):
            for cpus, name in types.items():
                if cpus >= size.cpus and cpus * each >= size.memory_gib:
                    return name
    raise StudyError(
        "--instance-type",
        value=f"{size.cpus} CPUs, {size.gpus} GPUs, {size.memory_gib} GiB",
        rule="no instance type that is known here holds a node of that size",
        remedy="name one with --instance-type, or ask for smaller nodes with --cpus-per-node",
    )


def _kubernetes_name(study: Study, store: str) -> str:
    """A name that Kubernetes takes: at most 47 lower-case letters, digits and hyphens."""
    slug = re.sub(r"[^a-z0-9]+", "-", study.name.lower()).strip("-")[:24].strip("-")
    return f"revstudy-{slug}-{submission_id(study, store)[-12:]}"


def _gib(count: int) -> int:
    return -(-count // 2**30)


class _Dumper(yaml.SafeDumper):
    """Without anchors, which few people read, and with text of several lines as such."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text else None
    ),
)


def _document(content: dict[str, Any], notes: list[str]) -> str:
    comments = "".join(f"# {note}\n" for note in notes)
    return comments + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
