"""The commands `launch slurm` and `launch gke`."""

import shlex
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from calibtrain.cli.options import AsJson, RunOrStudyOverrides, run_folder
from calibtrain.config.ready_made import found
from calibtrain.errors import UserError
from calibtrain.process.output import print_json, say
from calibtrain.storage.places import in_bucket

launch_app = typer.Typer(
    no_args_is_help=True, help="Run on an engine: a Slurm cluster, or Cloud TPUs under GKE."
)

Described = Annotated[
    str, typer.Argument(help="YAML file of a run or an ablation, or a ready-made name.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be submitted.")]


@launch_app.command()
def slurm(
    config: Described,
    overrides: RunOrStudyOverrides = None,
    run: Annotated[
        str | None, typer.Option(help="Run or study folder on a shared disk; default runs/NAME.")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Slurm's partition.")] = None,
    time: Annotated[
        str | None, typer.Option(help="Time limit of a job: 90 (minutes), 2:30:00, 1-12:00:00.")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes of each run.")] = 1,
    gpus_per_node: Annotated[int | None, typer.Option(min=1, help="GPUs of each node.")] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs of each node.")] = None,
    mem: Annotated[str | None, typer.Option(help="Memory of each node, for example 16G.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm's account.")] = None,
    qos: Annotated[str | None, typer.Option(help="Slurm's quality of service.")] = None,
    grace: Annotated[
        int, typer.Option(min=1, help="Seconds before the time limit at which a run saves.")
    ] = 120,
    parallel: Annotated[
        int | None, typer.Option(min=1, help="Arms that may run at once; default all.")
    ] = None,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="Another option of sbatch: --sbatch constraint=a100")
    ] = None,
    srun: Annotated[
        list[str] | None,
        typer.Option(help="An option of the srun that starts tasks: --srun container-image=IMAGE"),
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Submit a run as a job, or an ablation as an array with one element per arm.

    A job that is preempted or reaches its time limit saves, goes back into the queue and goes on
    later. Arms that are done are skipped. An ablation ends with its report.

    Example: calibtrain launch slurm kjv-ablation --run runs/kjv --time 4:00:00
    """
    from calibtrain.launch.slurm import Resources, launch, options, plan, srun_arguments

    resources = Resources(
        partition=partition,
        time=time,
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        cpus=cpus,
        mem=mem,
        account=account,
        qos=qos,
        grace=grace,
        parallel=parallel,
        extra=tuple(_pair(item, "--sbatch") for item in sbatch or ()),
        srun=tuple(_pair(item, "--srun") for item in srun or ()),
    )
    given = run_folder(run, found(config))
    if in_bucket(given):
        raise UserError(f"--run: {given}: a Slurm job's folder is on a disk that its nodes share")
    started = srun_arguments(resources)
    asked = options(resources)  # report a mistake in them before any data is prepared
    folder = str(given)
    assignment = _assign(config, overrides, folder)
    if dry_run:
        work, skipped = plan(assignment)
        commands = {
            kind: [shlex.join(["calibtrain", *task.arguments]) for task in tasks]
            for kind, tasks in work.items()
        }
        if as_json:
            print_json({"options": asked, "srun": started, "skipped": skipped, **commands})
            return
        print("\n".join([*_flags(asked), *(f"srun {option}" for option in started)]))
        print("\n".join(commands["train"] + [f"then: {line}" for line in commands["gather"]]))
        return
    result = launch(assignment, resources)
    if as_json:
        print_json(result)
    for name in result["skipped"]:
        say(f"done already: {name or folder}")
    say(f"jobs: {' '.join(result['jobs']) or 'none'}    logs: {result['logs']}")


@launch_app.command()
def gke(
    config: Described,
    overrides: RunOrStudyOverrides = None,
    tpu: Annotated[str, typer.Option(help="Slice: v5e-16, v6e-32, v5p-64 (64 cores), v4-32.")] = "",
    run: Annotated[str, typer.Option(help="Run or study folder: gs://BUCKET/PATH.")] = "",
    image: Annotated[str, typer.Option(help="Container image with calibtrain[tpu].")] = "",
    slices: Annotated[int, typer.Option(min=1, help="Slices of each run.")] = 1,
    name: Annotated[
        str | None, typer.Option(help="Name of the JobSet; for an ablation, prefix of the names.")
    ] = None,
    namespace: Annotated[str, typer.Option(help="Kubernetes namespace.")] = "default",
    service_account: Annotated[
        str | None, typer.Option(help="Kubernetes service account that may write the bucket.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Kueue's local queue.")] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Use Spot nodes.")] = False,
    max_restarts: Annotated[int, typer.Option(min=0, help="Most restarts of a run.")] = 100,
    grace: Annotated[int, typer.Option(min=1, help="Seconds that a run has to save.")] = 300,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Start a run as a JobSet on TPU slices, or an ablation as one JobSet per arm.

    Standard output is the manifest (with --dry-run) or kubectl's output; the XPK commands that do
    the same go to standard error.

    Example: calibtrain launch gke tiny --tpu v5e-16 --run gs://me/tiny --image me/ct:1
    """
    for option, value in {"--tpu": tpu, "--run": run, "--image": image}.items():
        if not value:
            raise UserError(f"{option}: is required (see calibtrain launch gke --help)")
    from calibtrain.launch.gke import (
        apply,
        check_folder,
        check_slices,
        manifests,
        names,
        xpk_commands,
    )
    from calibtrain.launch.jobset import SLICES_WAIT, ClusterOptions, check_name
    from calibtrain.parallel.tpu import find_slice

    chips = find_slice(tpu)
    check_slices(chips, slices)
    folder = check_folder(run)
    if name:
        check_name(name)
    if slices > 1 and queue is None:
        say(
            f"note: --slices {slices} without --queue: GKE does not schedule slices together; each "
            f"holds its chips and waits for the others for at most {SLICES_WAIT // 3600} h"
        )
    assignment = _assign(config, overrides, folder)
    options = ClusterOptions(
        image=image,
        slices=slices,
        namespace=namespace,
        service_account=service_account,
        queue=queue,
        spot=spot,
        max_restarts=max_restarts,
        grace=grace,
    )
    documents = manifests(assignment, chips, options, name)
    commands = xpk_commands(assignment, chips, options, name)
    said = None if dry_run else apply(documents)
    if as_json:
        jobs = {job: entry.folder for job, entry in names(assignment, name).items()}
        result = {"jobs": jobs, "manifest": documents, "xpk": commands}
        print_json(result if said is None else {**result, "applied": said})
        return
    print(documents if said is None else said, end="")
    say(f"node pools: {slices} of {chips.machine}, topology {chips.topology}, {chips.hosts} nodes")
    for command in commands:
        say(f"with XPK: {command}")


def _pair(item: str, option: str) -> tuple[str, str]:
    key, equals, value = item.strip().removeprefix("--").partition("=")
    if not equals or not key:
        raise UserError(f"{option}: {item!r}: write it as option=value")
    return key, value


def _flags(asked: dict[str, Any]) -> list[str]:
    return [
        f"sbatch --{key}" + ("" if value is True else f"={value}") for key, value in asked.items()
    ]


def _assign(config: str, overrides: Sequence[str] | None, folder: str) -> Any:
    """Returns the runs of a configuration; prints what is prepared, and what is left out."""
    from calibtrain.cli.terminal import show_counting
    from calibtrain.launch.assignment import resolve

    with show_counting("arms prepared") as progress:

        def observe(arm: str, number: int, total: int) -> None:
            say(f"preparing arm {number + 1} of {total}: {arm}")
            progress(number, total)

        assignment = resolve(found(config), overrides or (), folder, observer=observe)
    for name, error in assignment.impossible:
        say(f"left out: arm {name}: {error}")
    return assignment
