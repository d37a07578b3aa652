"""The Kubernetes manifest of a run on TPU slices: one JobSet (jobset.x-k8s.io/v1alpha2).

A JobSet has one Job per slice and one Pod per host, gives the Pods stable names in one headless
service, and restarts all of them when one fails. GKE adds the variables by which JAX finds its
peers (TPU_WORKER_ID, TPU_WORKER_HOSTNAMES, and MEGASCALE_* between slices).

References:
    The JobSet API reference, and Google's pages on TPU workloads in GKE.
"""

import dataclasses
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from calibtrain.config import Config, resolved_yaml
from calibtrain.errors import UserError
from calibtrain.parallel import meeting
from calibtrain.parallel.tpu import Slice

LONGEST_NAME = 40
"""Pods are called NAME-slice-I-J, and a host name has at most 63 characters."""

CONFIG_PATH = "/tmp/calibtrain.yaml"
CACHE_PATH = "/tmp/calibtrain-cache"

TPU_PORT = 8471
"""Port at which the TPU runtimes of a slice find each other."""
MEGASCALE_PORT = 8080
"""Port at which slices find each other."""
SLICES_WAIT = 6 * 3600
"""Seconds that a slice waits for the others: each is scheduled when a node pool is free."""


@dataclasses.dataclass(frozen=True)
class ClusterOptions:
    """How a run is put on a cluster.

    Attributes:
        image: container image with calibtrain[tpu].
        slices: TPU slices of a run, joined by the data-centre network.
        namespace: Kubernetes namespace.
        service_account: Kubernetes service account that may write the run's bucket.
        queue: Kueue's LocalQueue, if the cluster has one.
        spot: whether to use Spot nodes.
        max_restarts: how often the JobSet restarts before it counts as failed.
        grace: seconds that a run has to save after SIGTERM.
    """

    image: str
    slices: int = 1
    namespace: str = "default"
    service_account: str | None = None
    queue: str | None = None
    spot: bool = False
    max_restarts: int = 100
    grace: int = 300


def job_name(stem: str, arm: str = "") -> str:
    """Returns a name that Kubernetes allows for a run or an arm: letters, digits and dashes.

    Where other characters are lost, a few digits of a hash keep names distinct.
    """
    whole = f"{stem}-{arm}" if arm else stem
    plain = re.sub(r"[^a-z0-9]+", "-", whole.lower()).strip("-") or "run"
    plain = plain if plain[0].isalpha() else f"run-{plain}"
    readable = re.sub(r"[=,_]", "-", whole)
    if plain == readable and len(plain) <= LONGEST_NAME:
        return plain
    digest = hashlib.sha256(whole.encode()).hexdigest()[:6]
    return f"{plain[: LONGEST_NAME - 7].rstrip('-')}-{digest}"


def check_name(name: str) -> str:
    """Returns the name, if Kubernetes allows it and it leaves room for the names of its Pods.

    Raises:
        UserError: otherwise.
    """
    if len(name) > LONGEST_NAME or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        raise UserError(
            f"--name: {name!r} is not allowed: write at most {LONGEST_NAME} small letters, digits "
            "and dashes, a letter first and no dash last"
        )
    return name


def manifest(
    name: str, config: Config, run: str, tpu: Slice, options: ClusterOptions
) -> dict[str, Any]:
    """Returns the JobSet that trains a run.

    Args:
        name: name of the JobSet.
        config: configuration of the run, which the manifest contains.
        run: folder that all hosts share: "gs://BUCKET/PATH".
        tpu: the kind of slice.
        options: how to run it.
    """
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": options.namespace,
        # each Job gets a whole node pool (a slice), so that two arms never hold half a slice each
        "annotations": {
            "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
        },
    }
    if options.queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": options.queue}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "network": {"enableDNSHostnames": True, "subdomain": name},
            "failurePolicy": {
                "maxRestarts": options.max_restarts,
                "rules": [
                    {
                        "name": "mistake",
                        "action": "FailJobSet",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {
                    "name": "slice",
                    "replicas": options.slices,
                    "template": {"spec": _job(config, run, tpu, options)},
                }
            ],
        },
    }


def _job(config: Config, run: str, tpu: Slice, options: ClusterOptions) -> dict[str, Any]:
    """Returns the Job of a slice, with one Pod per host."""
    return {
        "completionMode": "Indexed",
        "parallelism": tpu.hosts,
        "completions": tpu.hosts,
        "backoffLimit": 0,  # a failed host fails its slice; the JobSet restarts all
        "podFailurePolicy": {
            "rules": [
                {  # the status of a user's mistake, which a restart would not mend
                    "action": "FailJob",
                    "onExitCodes": {"containerName": "train", "operator": "In", "values": [2]},
                }
            ]
        },
        "template": {"spec": _pod(config, run, tpu, options)},
    }


def _pod(config: Config, run: str, tpu: Slice, options: ClusterOptions) -> dict[str, Any]:
    chips = str(tpu.chips_per_host)
    selector = {
        "cloud.google.com/gke-tpu-accelerator": tpu.accelerator,
        "cloud.google.com/gke-tpu-topology": tpu.topology,
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": options.grace,
        "nodeSelector": selector,
        "containers": [
            {
                "name": "train",
                "image": options.image,
                "command": ["sh", "-c", start_command(run, f"printf %s {_VARIABLE}")],
                "env": [
                    {"name": key, "value": value}
                    for key, value in _environment(config, options).items()
                ],
                "ports": [{"containerPort": TPU_PORT}, {"containerPort": MEGASCALE_PORT}],
                "resources": {
                    "requests": {"google.com/tpu": chips},
                    "limits": {"google.com/tpu": chips},
                },
            }
        ],
    }
    if options.service_account:
        pod["serviceAccountName"] = options.service_account
    if options.spot:
        selector["cloud.google.com/gke-spot"] = "true"
        pod["tolerations"] = [
            {
                "key": "cloud.google.com/gke-spot",
                "operator": "Equal",
                "value": "true",
                "effect": "NoSchedule",
            }
        ]
    return pod


_VARIABLE = '"$CALIBTRAIN_CONFIG"'


def start_command(run: str, prints_config: str) -> str:
    """Returns the shell command of a host: write the configuration, then become the worker."""
    return (
        f"{prints_config} > {CONFIG_PATH} && "
        f"exec python -m calibtrain.launch.worker {CONFIG_PATH} {shlex.quote(run)}"
    )


def _environment(config: Config, options: ClusterOptions) -> Mapping[str, str]:
    text = resolved_yaml(config).replace("$(", "$$(")  # Kubernetes would expand it
    return {
        **({meeting.WAIT: str(SLICES_WAIT)} if options.slices > 1 else {}),
        "CALIBTRAIN_CONFIG": text,
        "CALIBTRAIN_CACHE": CACHE_PATH,
        "JAX_PLATFORMS": "tpu,cpu",  # an error where no TPU is, rather than a slow run
        "PYTHONUNBUFFERED": "1",
    }


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as YAML block scalars."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_documents(manifests: Sequence[Mapping[str, Any]]) -> str:
    """Returns manifests as one YAML stream."""
    return yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=100)
