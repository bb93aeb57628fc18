"""Show a job's progress until it ends: a bar on a terminal, plain lines in a pipe."""

import contextlib
import time
from collections.abc import Callable, Iterator
from textwrap import indent
from typing import Any

from orchestrator.cli.output import answer, duration, is_terminal, program, state_text, talk
from orchestrator.cli.session import Session
from orchestrator.jobs.errors import (
    EXIT_INTERRUPTED,
    EXIT_JOB_FAILED,
    EXIT_JOB_STOPPED,
    UnreachableError,
)
from orchestrator.jobs.job import PREFIX, Job
from orchestrator.jobs.recipes import recipe_files
from orchestrator.jobs.states import State
from orchestrator.results import evaluation, sweep_status
from orchestrator.results.links import run_page
from orchestrator.results.progress import GROUP_KINDS
from orchestrator.results.status import all_lines

_POLL_S = 0.5
_EXIT = {State.FINISHED: 0, State.FAILED: EXIT_JOB_FAILED, State.KILLED: EXIT_JOB_STOPPED}
_RETRY = {"eval": "begin it again", "ablation": "queue again what failed or was stopped of it"}
_EPOCH_KEYS = ("train/loss", "val/top1", "perf/images_per_s")


def follow(session: Session, job: Job) -> int:
    """Show progress until the job ends; return the exit code that fits its end.

    Ctrl-C ends only the watching. An unreachable server is waited for.
    """
    try:
        last = _shown_until_final(session, job)
    except KeyboardInterrupt:
        again = f"watch {job.job_id}" if job.kind in GROUP_KINDS else f"logs {job.job_id} -f"
        talk(f"\nno longer watching; {job.job_id} goes on. Watch it again, or stop it:")
        talk(f"  {program()} {again}")
        talk(f"  {program()} stop {job.job_id}")
        return EXIT_INTERRUPTED
    _closing_words(session, last)
    return _EXIT[last.state]


def _shown_until_final(session: Session, job: Job) -> Job:
    if job.kind in GROUP_KINDS:
        from orchestrator.cli.live_page import show_until_final

        return show_until_final(session, job)
    return _follow_bar(session, job) if is_terminal() else _follow_lines(session, job)


def _snapshots(session: Session, job: Job) -> Iterator[Job]:
    """Yield the job as it stands, twice a second, until it has ended."""
    complained = False
    while True:
        try:
            job = session.store.get(job.run_id)
        except UnreachableError as exc:
            if not complained:
                talk(f"{exc.message}; waiting for it, the job is not affected")
            complained = True
        else:
            complained = False
            yield job
            if job.state.is_final:
                return
        time.sleep(_POLL_S)


class _News:
    """Tells what has changed between snapshots: phases, reasons, finished epochs."""

    def __init__(self, session: Session, say: Callable[[str], None]) -> None:
        self._session = session
        self._say = say
        self._phase = ""
        self._epoch = 0

    def tell(self, job: Job) -> None:
        phase = _phase_text(job)
        if phase and phase != self._phase:
            self._phase = phase
            self._say(phase)
        epoch = job.epoch
        if epoch > self._epoch:
            # A server that has just gone away is met again, and waited for, by the next look.
            with contextlib.suppress(UnreachableError):
                self._tell_epochs(job, epoch)
                self._epoch = epoch

    def _tell_epochs(self, job: Job, newest: int) -> None:
        history = {
            key: dict(self._session.store.metric_history(job.run_id, key)) for key in _EPOCH_KEYS
        }
        total = job.raw_spec["config"]["epochs"]
        for epoch in range(self._epoch + 1, newest + 1):
            if epoch not in history["val/top1"]:
                continue
            self._say(
                f"epoch {epoch:>{len(str(total))}}/{total}"
                f"  loss {history['train/loss'].get(epoch, float('nan')):.4f}"
                f"  val top-1 {history['val/top1'][epoch]:.2f} %"
                f"  {history['perf/images_per_s'].get(epoch, 0.0):,.0f} images/s"
            )


def _phase_text(job: Job) -> str:
    if job.state.is_final or job.phase in ("training", "evaluating"):
        return ""
    text = {
        "queued": "queued",
        "launching": "starting the driver",
        "starting": "starting the workers",
        "resuming": "starting the workers, to resume from the last checkpoint",
        "resizing": "saving a checkpoint, to go on with more workers",
        "stopping": "stopping: a checkpoint is saved first",
    }.get(job.phase, job.phase)
    return f"{text} ({job.reason})" if job.reason else text


def _follow_lines(session: Session, job: Job) -> Job:
    news = _News(session, answer)
    for job in _snapshots(session, job):  # noqa: B020 - the newest snapshot is the result
        news.tell(job)
    return job


def _follow_bar(session: Session, job: Job) -> Job:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    console = Console(highlight=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[numbers]}"),
    )
    news = _News(session, lambda text: console.print(text, markup=False))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("waiting", total=None, numbers="")
        for job in _snapshots(session, job):  # noqa: B020
            news.tell(job)
            said = job.progress
            if said:
                progress.update(
                    task,
                    description=_doing(job),
                    total=said["total_steps"],
                    completed=said["global_step"],
                    numbers=progress_numbers(said),
                )
            else:
                progress.update(task, description=job.phase)
    return job


def _doing(job: Job) -> str:
    """Return what a bar is a bar of."""
    if job.kind == "eval":
        return "evaluating"
    return f"epoch {job.progress['epoch']}/{job.progress['epochs']}"


def progress_numbers(said: dict[str, Any]) -> str:
    """Return loss, accuracy, speed and remaining time as one line."""
    parts = []
    if said.get("loss") is not None:
        parts.append(f"loss {said['loss']:.4f}")
    if said.get("val_top1") is not None:
        parts.append(f"val top-1 {said['val_top1']:.2f} %")
    if said.get("images_per_s"):
        parts.append(f"{said['images_per_s']:,.0f} images/s")
    if said.get("eta_s") is not None:
        parts.append(f"{duration(said['eta_s'])} left")
    return "  ".join(parts)


def _closing_words(session: Session, job: Job) -> None:
    took = duration(((job.end_ms or job.start_ms) - job.start_ms) / 1000)
    answer(f"{state_text(job.state.value)} {job.job_id} after {took}")
    result = job.result
    if job.state is State.FINISHED and job.kind == "eval":
        _tell_evaluation(job)
    elif job.state is State.FINISHED and job.kind == "tune":
        for label, text in sweep_status.outcome(job):
            answer(f"  {label:<12} {text}")
    elif job.state is State.FINISHED and job.kind == "ablation":
        answer(f"  {job.raw_spec['description']}")
        answer(f"  {job.reason}")
    elif job.state is State.FINISHED and result:
        answer(
            f"  top-1 {result['val_top1']:.2f} % on {result['num_val_images']} held-out images "
            f"(best epoch: {result['best_top1']:.2f} %, number {result['best_epoch']})"
        )
    elif job.reason:
        answer(indent(all_lines(job.reason), "  "))
    answer(f"  in the MLflow UI: {session.profile.mlflow_url}/{run_page(job)}")
    answer("Next:")
    for command, why in _next_commands(job):
        answer(f"  {program() + ' ' + command:<54} {why}")


def _tell_evaluation(job: Job) -> None:
    answer(f"  {job.raw_spec['description']}")
    for label, text in evaluation.numbers(job.metrics):
        answer(f"  {label:<12} {text}")
    answer(f"  files: {job.tags.get(PREFIX + 'evaluation', '')}")


def _next_commands(job: Job) -> list[tuple[str, str]]:
    if job.state is State.FINISHED and job.kind == "eval":
        return [
            ("ui", "log in to MLflow and see tables and pictures"),
            (f"status {job.job_id} -o json", "all numbers, for a script"),
            (f"logs {job.job_id}", "what it said"),
        ]
    if job.state is State.FINISHED and job.kind == "tune":
        return [
            (f"recipes best {job.job_id} > best.yaml", "its best settings as a recipe"),
            ("submit train best.yaml", "train with them"),
            (f"compare {job.job_id}", "all trials side by side"),
        ]
    if job.state is State.FINISHED and job.kind == "ablation":
        return [
            (f"compare {job.job_id}", "its cells side by side"),
            (f"report {job.job_id}", "tables and figures in a folder"),
            (f"ui {job.job_id}", "its views in MLflow"),
        ]
    if job.state is State.FINISHED:
        recipe = job.raw_spec["recipe"]
        baseline = recipe.replace("isqrt", "gap")
        second = (f"logs {job.job_id}", "what it said")
        if baseline != recipe and baseline in recipe_files():
            again = f"submit train {baseline} --follow"
            second = (again, "the same network with average pooling")
        return [
            ("ui", "log in to MLflow and see the curves"),
            second,
            (f"status {job.job_id}", "all about this job"),
        ]
    return [
        (f"logs {job.job_id}", "what it said"),
        (f"status {job.job_id}", "its attempts and why they ended"),
        (
            f"retry {job.job_id}",
            _RETRY.get(job.kind, "go on from its last checkpoint"),
        ),
    ]
