"""The commands `train`, `ablate` and `finetune`."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from calibtrain.cli.completion import complete_config
from calibtrain.cli.options import (
    AsJson,
    ConfigPath,
    Overrides,
    Progress,
    ProgressKind,
    StudyOverrides,
    as_typed,
    run_folder,
)
from calibtrain.config.ready_made import found
from calibtrain.process.interruption import leaving
from calibtrain.process.output import print_json, say


def train(
    config: ConfigPath,
    overrides: Overrides = None,
    run: Annotated[
        str | None,
        typer.Option(help="Run folder, or gs://BUCKET/PATH; default runs/NAME. Resumed if there."),
    ] = None,
    as_json: AsJson = False,
    progress: Progress = ProgressKind.auto,
    quiet_result: Annotated[bool, typer.Option("--quiet-result", hidden=True)] = False,
    beside: Annotated[list[str] | None, typer.Option("--beside", hidden=True)] = None,
) -> None:
    """Train one model and measure its calibration and entropy while it trains.

    Started again with the same arguments, it goes on from the last checkpoint and ends with the
    same parameters and metrics as an uninterrupted run. SIGTERM and Ctrl-C save first.

    With train.replicas=R, R seeds are trained by one program, each in its own run folder inside
    --run.

    Example: calibtrain train tiny tokenizer.vocab_size=1024 --run runs/v1024
    """
    source = found(config)
    path = run_folder(run, source)
    from calibtrain.parallel import hosts

    with leaving(path), hosts.losses():
        from calibtrain.config import load_config

        settings = load_config(source, overrides or ())
        hosts.start()
        if beside:
            train_beside(source, path, beside, progress)
            return
        if settings.train.replicas > 1:
            train_seeds(settings, path, progress, as_json)
            return
        from calibtrain.cli.terminal import make_view
        from calibtrain.evaluation import train_run

        before = finished(path)
        with make_view(progress.value) as view:
            outcome = train_run(settings, path, observer=lambda event: view("", event))
    if hosts.is_primary():  # only one host prints
        show_run(outcome, path, as_json, before, quiet=quiet_result)


def finished(path: Path) -> set[str]:
    """Returns which runs in a folder are finished: arms, or the folder itself as "."."""
    from calibtrain.runs.listing import finished_runs

    return finished_runs(path)


def show_run(
    outcome: Any, path: Path, as_json: bool, before: set[str], *, quiet: bool = False
) -> None:
    """Prints how the training of a run ended, and its results unless `quiet`.

    Args:
        outcome: of the training.
        path: the run folder.
        as_json: whether the result is printed as JSON.
        before: what was finished before, from `finished`.
        quiet: whether results are not printed.
    """
    from calibtrain.cli.result_tables import print_table, results_tables
    from calibtrain.cli.terminal import describe_stop

    if outcome.status == "stopped":
        say(describe_stop(outcome.step))
    elif before and not quiet:
        say(f"already finished: {path}, step {outcome.step:,}; nothing was left to train")
    if as_json:
        print_json({**outcome.summary, "evaluations": outcome.results})
    elif outcome.status == "done" and not quiet:
        for table in results_tables(list(outcome.results.items())):
            print_table(table)
        say(f"run: {path}    report: calibtrain report {shlex.quote(str(path))}")


def train_seeds(
    settings: Any, path: Path, progress: ProgressKind, as_json: bool, **how: Any
) -> None:
    """Trains the seeds of a run together, and prints their means.

    `how` says how, where they are not trained from scratch: see `train_replicas`.
    """
    from calibtrain.ablation.replicas import train_replicas
    from calibtrain.cli.terminal import make_view
    from calibtrain.parallel import hosts

    before = finished(path)
    with make_view(progress.value) as view:
        result = train_replicas(settings, path, command=as_typed(), observer=view, **how)
    if hosts.is_primary():  # only one host prints
        show_study(result, path, as_json, before)


def train_beside(config: Path, path: Path, names: list[str], progress: ProgressKind) -> None:
    """Trains arms of an ablation that differ only in their seed: a run and those in `names`."""
    from calibtrain.cli.terminal import make_view
    from calibtrain.config import load_config
    from calibtrain.evaluation import train_together
    from calibtrain.training.begin import Member

    with make_view(progress.value) as view:

        def member(name: str) -> Member:
            settings = load_config(config.with_name(f"{name}.yaml"), ())
            folder = path.with_name(name)
            return Member(settings, folder, lambda event: view(name, event))

        train_together([member(name) for name in (path.name, *names)])


def ablate(
    config: ConfigPath,
    overrides: StudyOverrides = None,
    run: Annotated[
        str | None, typer.Option(help="Study folder; default runs/NAME. Resumed if it is there.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Arms to run side by side.")] = 1,
    as_json: AsJson = False,
    progress: Progress = ProgressKind.auto,
) -> None:
    """Run an ablation (a base configuration, a grid and controls) and write its report.

    Arms that are done are not run again; a failed arm is reported and the others go on.

    Example: calibtrain ablate kjv-ablation base.budget.bytes=2e6 --jobs 2
    """
    source = found(config)
    path = run_folder(run, source)
    with leaving(path):
        from calibtrain.config import load_study

        study = load_study(source, overrides or ())
        from calibtrain.ablation import run_study
        from calibtrain.cli.terminal import make_view

        before = finished(path)
        with make_view(progress.value) as view:
            result = run_study(study, path, jobs=jobs, command=as_typed(), observer=view)
    show_study(result, path, as_json, before)


def show_study(result: dict[str, Any], path: Path, as_json: bool, before: set[str]) -> None:
    """Writes a study's report; prints its results and the errors of its arms.

    Args:
        result: of the study.
        path: its folder.
        as_json: whether the result is printed as JSON.
        before: the arms that were finished before, from `finished`.
    """
    from calibtrain.ablation.controls import NOT_MATCHED
    from calibtrain.cli.result_tables import print_table, study_tables
    from calibtrain.report import write_report

    statuses = [arm["status"] for arm in result["arms"]]
    report_path = write_report(path) if "done" in statuses else None
    if as_json:
        print_json(result)
    elif report_path:
        for table in study_tables(result):
            print_table(table)
    for row in result["held_fixed"]:
        if row["rule"].startswith(NOT_MATCHED):
            say(
                f"note: controls: {row['quantity']}: {row['rule']} "
                f"({row['smallest']:,} to {row['largest']:,} {row['unit']})"
            )
    for arm in result["arms"]:
        if arm["status"] == "failed":
            say(f"arm {arm['name']} failed: {arm['error']}")
    if before and before >= {arm["name"] for arm in result["arms"]}:
        say(f"already finished: all {len(statuses)} arms of {path}; nothing was left to train")
    if "stopped" in statuses:
        say("stopped and saved; the same command goes on from there")
    if report_path:
        say(f"report: {report_path}")
    if "failed" in statuses:
        raise typer.Exit(1)


def finetune(
    config: Annotated[
        str,
        typer.Argument(
            help="YAML file, or a ready-made name: finetune/sft.", autocompletion=complete_config
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that replace the file's: finetune.run=runs/tiny"),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Run folder; default runs/NAME. Resumed if there.")
    ] = None,
    as_json: AsJson = False,
    progress: Progress = ProgressKind.auto,
) -> None:
    """Fine-tune a run, trained here or imported, on prompts and answers, or on preferences.

    Calibration is measured meanwhile, on the run's corpus and on held-out answers. Started
    again with the same arguments, it goes on from the last checkpoint. With train.replicas=R, R
    seeds, which order the examples and draw adapters, are trained by one program, each in its own
    run folder inside --run.

    Example: calibtrain finetune finetune/sft finetune.run=runs/tiny --run runs/sft
    """
    source = found(config)
    path = run_folder(run, source)
    from calibtrain.parallel import hosts

    with leaving(path), hosts.losses():
        from calibtrain.cli.terminal import make_view
        from calibtrain.finetuning import finetune as start
        from calibtrain.finetuning import finetune_together, resolve
        from calibtrain.finetuning.plan import make_finetuning_plans

        hosts.start()
        settings = resolve(source, overrides or (), path)
        if settings.train.replicas > 1:
            how = {"together": finetune_together, "planner": make_finetuning_plans}
            train_seeds(settings, path, progress, as_json, **how)
            return
        before = finished(path)
        with make_view(progress.value) as view:
            outcome = start(settings, path, observer=lambda event: view("", event))
    if hosts.is_primary():
        show_run(outcome, path, as_json, before)
