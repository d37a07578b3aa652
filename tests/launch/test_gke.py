"""Manifests: valid JobSets that ask for the slice, hosts and chips that Google's tables give."""

import base64
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from conftest import TINY, tiny
from pydantic import BaseModel, ConfigDict, Field
from typer.testing import CliRunner

from calibtrain.cli.launching import launch_app
from calibtrain.config import load_config
from calibtrain.errors import UserError
from calibtrain.launch.gke import apply, check_folder
from calibtrain.launch.jobset import ClusterOptions, job_name, manifest, to_documents
from calibtrain.launch.worker import STOPPED, train_command, watch
from calibtrain.parallel.tpu import SLICES, find_slice

LABEL = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"


class Closed(BaseModel):
    """What the API server would prune or refuse is refused: unknown keys, wrong types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ExitCodes(Closed):
    containerName: str | None = None
    operator: Literal["In", "NotIn"]
    values: list[int] = Field(min_length=1, max_length=255)


class PodFailureRule(Closed):
    action: Literal["FailJob", "FailIndex", "Ignore", "Count"]
    onExitCodes: ExitCodes | None = None


class PodFailurePolicy(Closed):
    rules: list[PodFailureRule] = Field(max_length=20)


class Variable(Closed):
    name: str = Field(pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")
    value: str


class Port(Closed):
    containerPort: int = Field(gt=0, lt=65536)


class Needs(Closed):
    requests: dict[str, str]
    limits: dict[str, str]


class Container(Closed):
    name: str = Field(pattern=LABEL, max_length=63)
    image: str
    command: list[str]
    env: list[Variable]
    ports: list[Port]
    resources: Needs


class Toleration(Closed):
    key: str
    operator: Literal["Exists", "Equal"]
    value: str
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class PodSpec(Closed):
    restartPolicy: Literal["Never"]  # a podFailurePolicy allows no other
    terminationGracePeriodSeconds: int = Field(ge=0)
    nodeSelector: dict[str, str]
    containers: list[Container] = Field(min_length=1)
    serviceAccountName: str | None = None
    tolerations: list[Toleration] | None = None


class PodTemplate(Closed):
    spec: PodSpec


class JobSpec(Closed):
    completionMode: Literal["Indexed", "NonIndexed"]
    parallelism: int = Field(ge=0)
    completions: int = Field(ge=0)
    backoffLimit: int = Field(ge=0)
    podFailurePolicy: PodFailurePolicy
    template: PodTemplate


class JobTemplate(Closed):
    spec: JobSpec


class ReplicatedJob(Closed):
    name: str = Field(pattern=LABEL)
    replicas: int = Field(ge=0)
    template: JobTemplate


class FailureRule(Closed):
    name: str = Field(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    action: Literal["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
    onJobFailureReasons: list[
        Literal[
            "BackoffLimitExceeded",
            "DeadlineExceeded",
            "FailedIndexes",
            "MaxFailedIndexesExceeded",
            "PodFailurePolicy",
        ]
    ]


class FailurePolicy(Closed):
    maxRestarts: int = Field(ge=0)
    rules: list[FailureRule]


class Network(Closed):
    enableDNSHostnames: bool
    subdomain: str = Field(pattern=LABEL, max_length=63)


class JobSetSpec(Closed):
    network: Network
    failurePolicy: FailurePolicy
    replicatedJobs: list[ReplicatedJob] = Field(min_length=1)


class Metadata(Closed):
    name: str = Field(pattern=LABEL, max_length=63)
    namespace: str = Field(pattern=LABEL, max_length=63)
    annotations: dict[str, str]
    labels: dict[str, str] | None = None


class JobSet(Closed):
    """What the JobSet API (v1alpha2) and the Job API say of the fields that we write."""

    apiVersion: Literal["jobset.x-k8s.io/v1alpha2"]
    kind: Literal["JobSet"]
    metadata: Metadata
    spec: JobSetSpec


def made(tpu: str, **options: Any) -> JobSet:
    """The manifest of a tiny run, through YAML, validated."""
    tree = manifest(
        "study-arm",
        tiny(),
        "gs://b/study/seed=0,v=1",
        find_slice(tpu),
        ClusterOptions("i", **options),
    )
    (document,) = yaml.safe_load_all(to_documents([tree]))
    assert document == tree
    return JobSet.model_validate(document)


@pytest.mark.parametrize("name", SLICES)
def test_every_slice_makes_a_valid_jobset(name: str) -> None:
    tpu = SLICES[name]
    job = made(name).spec.replicatedJobs[0]
    spec = job.template.spec
    container = spec.template.spec.containers[0]
    assert container.resources.limits == container.resources.requests
    assert int(container.resources.limits["google.com/tpu"]) * spec.completions == tpu.chips
    assert spec.parallelism == spec.completions
    pod_host = f"study-arm-{job.name}-{job.replicas - 1}-{spec.completions - 1}"
    assert len(pod_host) <= 63


# from Google's tables of TPU machine types in GKE
@pytest.mark.parametrize(
    ("name", "accelerator", "topology", "machine", "hosts", "xpk"),
    [
        ("v5e-1", "tpu-v5-lite-podslice", "1x1", "ct5lp-hightpu-1t", 1, "v5litepod-1"),
        ("v5e-4", "tpu-v5-lite-podslice", "2x2", "ct5lp-hightpu-4t", 1, "v5litepod-4"),
        ("v5e-8", "tpu-v5-lite-podslice", "2x4", "ct5lp-hightpu-4t", 2, "v5litepod-8"),
        ("v5e-16", "tpu-v5-lite-podslice", "4x4", "ct5lp-hightpu-4t", 4, "v5litepod-16"),
        ("v5e-256", "tpu-v5-lite-podslice", "16x16", "ct5lp-hightpu-4t", 64, "v5litepod-256"),
        ("v5p-8", "tpu-v5p-slice", "2x2x1", "ct5p-hightpu-4t", 1, "v5p-8"),
        ("v5p-64", "tpu-v5p-slice", "2x4x4", "ct5p-hightpu-4t", 8, "v5p-64"),
        ("v5p-1024", "tpu-v5p-slice", "8x8x8", "ct5p-hightpu-4t", 128, "v5p-1024"),
        ("v4-32", "tpu-v4-podslice", "2x2x4", "ct4p-hightpu-4t", 4, "v4-32"),
        ("v6e-16", "tpu-v6e-slice", "4x4", "ct6e-standard-4t", 4, "v6e-16"),
        ("tpu7x-8", "tpu7x", "2x2x1", "tpu7x-standard-4t", 1, "tpu7x-8"),
        ("tpu7x-128", "tpu7x", "4x4x4", "tpu7x-standard-4t", 16, "tpu7x-128"),
    ],
)
def test_slices_are_those_of_googles_tables(
    name: str, accelerator: str, topology: str, machine: str, hosts: int, xpk: str
) -> None:
    tpu = find_slice(name)
    assert (tpu.accelerator, tpu.topology, tpu.machine, tpu.hosts, tpu.xpk) == (
        accelerator,
        topology,
        machine,
        hosts,
        xpk,
    )
    assert find_slice(xpk) == tpu == find_slice(f"{name.partition('-')[0]}:{topology}")
    selector = made(name).spec.replicatedJobs[0].template.spec.template.spec.nodeSelector
    assert selector == {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [("v5e-17", "v5e-16"), ("v5p-4", "count cores"), ("v9-8", "v6e"), ("v5litepod-3", "v5e-4")],
)
def test_unknown_slices_are_refused_with_those_there_are(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        find_slice(name)
    assert "\n" not in str(caught.value)


def test_options_reach_the_manifest() -> None:
    options = {"slices": 2, "spot": True, "queue": "q", "service_account": "sa", "grace": 7}
    jobset = made("v5e-16", max_restarts=3, namespace="lab", **options)
    job = jobset.spec.replicatedJobs[0]
    pod = job.template.spec.template.spec
    assert job.replicas == 2
    assert jobset.metadata.labels == {"kueue.x-k8s.io/queue-name": "q"}
    assert jobset.metadata.namespace == "lab"
    assert jobset.spec.failurePolicy.maxRestarts == 3
    assert pod.nodeSelector["cloud.google.com/gke-spot"] == "true"
    assert pod.tolerations is not None
    assert pod.serviceAccountName == "sa"
    assert pod.terminationGracePeriodSeconds == 7


def test_pods_are_valid_by_kubernetes_own_schema() -> None:
    validator = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed (22 MB of schemas)"
    )
    for options in ({}, {"spot": True, "service_account": "sa", "slices": 2}):
        tree = manifest(
            "n", tiny(), "gs://b/r", find_slice("v5p-64"), ClusterOptions("i", **options)
        )
        job = tree["spec"]["replicatedJobs"][0]["template"]
        named = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "n"}, **job}
        validator.validate(named, validator.latest_version(), strict=True)


@pytest.mark.parametrize("text", ["plain", "a $(HOME) b", "é 'quoted' \"twice\""])
def test_the_pods_shell_hands_over_the_very_configuration(text: str, tmp_path: Path) -> None:
    config = tiny(corpus={"name": "files", "paths": [f"gs://x/{text}"]})
    run = "gs://b/it's/seed=0,v=1"
    tree = manifest("n", config, run, find_slice("v5e-16"), ClusterOptions("i"))
    (container,) = tree["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
        "containers"
    ]
    shell, flag, script = container["command"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    expanded = {key: value.replace("$$(", "$(") for key, value in variables.items()}  # kubelet
    assert all("$(" not in value.replace("$$(", "") for value in variables.values())
    written = tmp_path / "config.yaml"
    script = script.replace("/tmp/calibtrain.yaml", str(written))
    script = script.replace("exec python -m calibtrain.launch.worker", 'printf "%s\\n"')
    done = subprocess.run(
        [shell, flag, script], env={**os.environ, **expanded}, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [str(written), run]
    assert load_config(written) == config


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(launch_app, ["gke", *arguments])


def test_dry_run_prints_a_jobset_an_arm_and_the_commands_of_xpk(tmp_path: Path) -> None:
    config = tmp_path / "study.yaml"
    grid = {"tokenizer.vocab_size": [285, 300]}
    config.write_text(json.dumps({"title": "Two", "base": TINY, "grid": grid}))
    done = invoke(
        *(str(config), "--tpu", "v5e-16", "--run", "gs://b/kjv/", "--image", "i:1", "--dry-run")
    )
    assert done.exit_code == 0, done.output
    jobsets = [JobSet.model_validate(tree) for tree in yaml.safe_load_all(done.stdout)]
    assert [jobset.metadata.name for jobset in jobsets] == [
        "kjv-vocab-size-285",
        "kjv-vocab-size-300",
    ]
    lines = [line for line in done.stderr.splitlines() if line.startswith("with XPK: ")]
    for line, size in zip(lines, (285, 300), strict=True):
        words = shlex.split(line.removeprefix("with XPK: "))
        assert words[:3] == ["xpk", "workload", "create"]
        given = dict(word.removeprefix("--").split("=", 1) for word in words[3:])
        assert given["tpu-type"] == "v5litepod-16"
        encoded = given["command"].partition("echo ")[2].partition(" ")[0]
        assert yaml.safe_load(base64.b64decode(encoded))["tokenizer"]["vocab_size"] == size
        assert f"gs://b/kjv/vocab_size={size}" in given["command"]


def test_slices_wait_long_for_each_other_and_without_a_queue_that_is_told(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(TINY))
    asked = [str(config), "--tpu", "v5e-16", "--run", "gs://b/r", "--image", "i", "--dry-run"]

    def waits(*more: str) -> tuple[str | None, str]:
        done = invoke(*asked, *more)
        (jobset,) = [JobSet.model_validate(tree) for tree in yaml.safe_load_all(done.stdout)]
        pod = jobset.spec.replicatedJobs[0].template.spec.template.spec
        variables = {entry.name: entry.value for entry in pod.containers[0].env}
        return variables.get("CALIBTRAIN_WAIT"), done.stderr

    assert waits()[0] is None
    seconds, said = waits("--slices", "2")
    assert seconds == "21600"
    assert "note: --slices 2 without --queue: GKE does not schedule slices together" in said
    assert "CALIBTRAIN_WAIT=21600; " in said  # in the command of XPK
    assert "note:" not in waits("--slices", "2", "--queue", "q")[1]


def test_only_a_mistake_is_final() -> None:
    """Status 2 fails a JobSet; any other status of a Pod restarts it."""
    jobset = made("v5e-16", slices=2)
    (rule,) = jobset.spec.replicatedJobs[0].template.spec.podFailurePolicy.rules
    assert rule.action == "FailJob"
    assert rule.onExitCodes is not None
    assert (rule.onExitCodes.operator, rule.onExitCodes.values) == ("In", [2])
    (failure,) = jobset.spec.failurePolicy.rules
    assert (failure.action, failure.onJobFailureReasons) == ("FailJobSet", ["PodFailurePolicy"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--run": "runs/here"}, "gs://BUCKET/PATH"),
        ({"--run": "gs://bucket"}, "gs://BUCKET/PATH"),
        ({"--tpu": "v5e-9"}, "v5e-8"),
        ({"--tpu": "v5e-4", "--slices": "2"}, "cannot be joined"),
        ({"--name": "Not_a_name"}, "--name"),
        ({"--image": ""}, "--image: is required"),
    ],
)
def test_mistakes_are_one_line(changed: dict[str, str], said: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(TINY))
    arguments = {"--tpu": "v5e-16", "--run": "gs://b/r", "--image": "i", **changed}
    done = invoke(str(config), *(word for pair in arguments.items() for word in pair), "--dry-run")
    assert isinstance(done.exception, UserError)
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)


def test_apply_needs_kubectl_and_repeats_its_complaint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="--dry-run"):
        apply("---\n")
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\necho 'no matches for kind JobSet' >&2\nexit 1\n")
    kubectl.chmod(0o755)
    with pytest.raises(UserError, match="no matches for kind JobSet"):
        apply("---\n")
    kubectl.write_text('#!/bin/sh\nwhile read -r line; do echo "$* $line"; done\n')
    assert apply("kind: JobSet\n") == "apply -f - kind: JobSet\n"


def test_launching_hands_the_printed_manifest_to_kubectl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(TINY))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\ncat > {tmp_path}/applied\necho "jobset/r created"\n')
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    arguments = [str(config), "--tpu", "v5e-16", "--run", "gs://b/r", "--image", "i"]
    printed = invoke(*arguments, "--dry-run")
    assert not (tmp_path / "applied").exists()
    done = invoke(*arguments)
    assert (done.exit_code, done.stdout) == (0, "jobset/r created\n")
    assert (tmp_path / "applied").read_text() == printed.stdout
    result = json.loads(invoke(*arguments, "--json").stdout)
    assert result["applied"] == "jobset/r created\n"
    assert result["jobs"] == {"r": "gs://b/r"}


def test_names_are_short_plain_and_apart() -> None:
    arms = [f"vocab_size={size},seed={seed},kind=x" for size in (512, 51200) for seed in range(9)]
    names = [job_name("a-study-with-a-long-name", arm) for arm in arms]
    assert len(set(names)) == len(arms)
    assert job_name("kjv", "vocab_size=512,seed=0") == "kjv-vocab-size-512-seed-0"
    assert job_name("a", "lr=0.1") != job_name("a", "lr=0-1")
    for name in [*names, job_name("9 Lives"), job_name("x" * 90)]:
        assert len(name) <= 40
        assert Metadata(name=name, namespace="d", annotations={})


@pytest.mark.parametrize("folder", ["gs://b/p", "gs://b/p/q/"])
def test_folders_in_buckets_are_taken(folder: str) -> None:
    assert check_folder(folder) == folder.rstrip("/")


@pytest.mark.long
def test_the_worker_tells_a_stopped_run_from_a_finished_one(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    rarely = {"evaluation": {**TINY["evaluation"], "every": 600}, "checkpoints": {"every": 600}}
    config.write_text(json.dumps({**TINY, **rarely, "budget": {"steps": 1200}, "log_every": 50}))
    run = tmp_path / "run"
    command = [sys.executable, "-m", "calibtrain.launch.worker", str(config), str(run)]
    worker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (run / "metrics.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == STOPPED == 143
    assert json.loads((run / "run.json").read_text())["status"] == "stopped"
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 0
    assert json.loads((run / "run.json").read_text())["status"] == "done"


def test_the_worker_keeps_the_status_of_a_mistake(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model: {width: -1}")
    assert watch(train_command(str(config), str(tmp_path / "run"))) == 2
