"""`gcpctl submit ablation`: a study as a group of ordinary jobs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.follow import follow
from orchestrator.cli.options import complete_recipes, output_option
from orchestrator.cli.output import answer, answer_json, program, talk
from orchestrator.cli.sending import Target, check_beginnings, tell_views, weights_of
from orchestrator.cli.session import Session
from orchestrator.cli.study_page import (
    Estimates,
    reuse_lines,
    study_json,
    study_text,
    work_text,
)
from orchestrator.jobs.errors import UnreachableError
from orchestrator.jobs.job import Job
from orchestrator.jobs.plan import Request, check_feasible
from orchestrator.jobs.plan_study import StudyPlan, StudyRequest, plan_study
from orchestrator.jobs.provenance import collect
from orchestrator.jobs.reuse import all_new, look
from orchestrator.jobs.source_checks import check_files
from orchestrator.jobs.spec import Resources
from orchestrator.jobs.states import State
from orchestrator.jobs.store import JobStore
from orchestrator.jobs.study_parts import Found
from orchestrator.jobs.submit_study import StudyRecorder, one_at_a_time
from orchestrator.results.past_cost import PastTrainings

_NO_STORAGE = Path("/")


class SeedsType(click.ParamType["tuple[int, ...]"]):
    """`0,1,2`."""

    name = "N,N,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # converted before
        words = [word.strip() for word in value.split(",")]
        if not all(word.isascii() and word.isdigit() for word in words):
            self.fail(f"{value!r} is no list of seeds such as 0,1,2", param, ctx)
        return tuple(map(int, words))


def complete_studies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the studies that begin so."""
    return complete_recipes(ctx, param, incomplete, kind="ablation")


@click.command("ablation", no_args_is_help=True)
@click.argument("study", shell_complete=complete_studies)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--dry-run", is_flag=True, help="Print the cells, what is there, and the cost; submit nothing."
)
@click.option("--seeds", type=SeedsType(), help="Instead of the study's: 0,1,2.")
@click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    help="Only cells of such names, as in 'pooling=i*', and the baseline.",
)
@click.option("--max-parallel", type=click.IntRange(1), help="Most jobs of it at once.")
@click.option("--fresh", is_flag=True, help="Use no earlier result; train every cell anew.")
@click.option("--name", help="The study's id; made up when left out.")
@click.option("--priority", type=int, help="Of all its jobs; higher starts first.")
@click.option("-f", "--follow", "follow_", is_flag=True, help="Show progress until it ends.")
@output_option
def ablation(
    study: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    seeds: tuple[int, ...] | None,
    only: tuple[str, ...],
    max_parallel: int | None,
    fresh: bool,
    name: str | None,
    priority: int | None,
    follow_: bool,
    output: str,
) -> None:
    """Submit STUDY, a study's name or YAML file: every cell with every seed.

    Every cell and seed is trained and evaluated by jobs of its own; a report follows when all have
    ended. What was trained before, here or for another study, is not trained again: the same
    command runs what is missing or has failed, and a study with another level, factor or seed runs
    that.

    KEY=VALUE changes the study where the key is one of its own (recipe, mode, seeds, metric,
    evaluate, factors, ...); any other key is laid over the recipe in every cell.

    \b
      gcpctl submit ablation pooling --dry-run
      gcpctl submit ablation pooling --seeds 0,1,2,3,4 --only 'pooling=*cov'
      gcpctl submit ablation pooling recipe=imagenet_resnet50_isqrt_lradju data.path=/data/imagenet
    """
    given = {
        "seeds": None if seeds is None else list(seeds),
        "max_parallel": max_parallel,
    }
    options = [f"{k}={json.dumps(v)}" for k, v in given.items() if v is not None]
    target = Target()
    train = Request(
        priority=priority,
        resolve_weights=lambda weights: weights_of(weights, ()),
        folder=target.folder,
    )
    request = StudyRequest(name=name, only=only, train=train)
    plan = plan_study(study, (*overrides, *options), request)
    _check(target, plan)
    if dry_run:
        _show(target, plan, fresh=fresh, named=name is not None, output=output)
        return
    session = Session(target.bring_up())
    nodes = session.ray.nodes()
    for resources in _gangs(plan):
        check_feasible(resources, nodes, where="the cluster")
    storage = session.profile.storage_path
    with one_at_a_time(session.profile, talk):
        found = look(session.store, plan, storage, fresh=fresh, named=name is not None)
        parent, recorded = _record(session, plan, found, fresh=fresh)
    if output == "json":
        now = {"job_id": parent.job_id, "state": parent.state.value, "submitted": recorded}
        answer_json(study_json(plan, found, {}) | now)
    else:
        _tell(session, plan, found, parent, recorded=recorded)
    tell_views(session, parent, say=output != "json")
    if follow_:
        sys.exit(follow(session, parent))


def _check(target: Target, plan: StudyPlan) -> None:
    """Meet what this machine could never hold, and files that are missing or do not fit.

    Once for all cells that are alike in this; the seeds of a cell are.
    """
    seen: set[str] = set()
    firsts = [(f"{plan.source}, cell {each.cell.name}", each.plans[0]) for each in plan.cells]
    for source, first in firsts:
        target.check_machine(first)
        parts = ("data", "init", "global_batch_size", "steps_per_epoch")
        key = json.dumps([first.spec.config[part] for part in parts], sort_keys=True)
        if target.is_local and key not in seen:
            check_files(first.config, source)
        seen.add(key)
    if target.is_local:
        check_beginnings(firsts)


def _gangs(plan: StudyPlan) -> list[Resources]:
    found = {planned.plans[0].spec.resources for planned in plan.cells}
    return [*found, plan.spec.resources]


def _show(target: Target, plan: StudyPlan, *, fresh: bool, named: bool, output: str) -> None:
    """Print what `--dry-run` promises; without a cluster everything is new."""
    found = all_new(plan, _NO_STORAGE)
    estimates: Estimates = {}
    if target.profile is not None:
        store = JobStore.of(target.profile)
        try:
            found = look(store, plan, target.profile.storage_path, fresh=fresh, named=named)
            estimates = _estimates(store, plan)
        except UnreachableError as exc:
            talk(f"{exc.message}; what is there already is not known")
    if output == "json":
        answer_json(study_json(plan, found, estimates))
    else:
        answer(study_text(plan, found, estimates))
        _tell_reuse(found, answer)
    talk("nothing was submitted")


def _tell_reuse(found: Found, say: Callable[[str], None]) -> None:
    lines = list(reuse_lines(found, collect([]).commit))
    for line in ["not trained again:", *lines] if lines else []:
        say(line)


def _estimates(store: JobStore, plan: StudyPlan) -> Estimates:
    past = PastTrainings.recent(store)
    return {planned.cell.name: past.estimate(planned.plans[0]) for planned in plan.cells}


def _record(session: Session, plan: StudyPlan, found: Found, *, fresh: bool) -> tuple[Job, bool]:
    """Record what is missing; return the study's job and whether anything was written."""
    recorder = StudyRecorder(
        session.store,
        plan,
        found,
        collect(sys.argv[1:]),
        cluster=session.profile.name,
        fresh=fresh,
    )
    if not recorder.has_work:
        return recorder.record(), False
    try:
        parent = recorder.record()
    except KeyboardInterrupt:
        job_id = found.group or plan.job_id
        talk("\ninterrupted; the same command completes the study, and this one stops it:")
        talk(f"  {program()} stop {job_id}")
        raise
    finally:
        session.nudge()
    return parent, True


def has_other_pace(plan: StudyPlan, found: Found) -> bool:
    """Whether unfinished jobs of a study have another limit or priority than is asked for now."""
    jobs = [part.job for part in found.parts() if part.job is not None]
    own = [job for job in jobs if job.group and job.group == found.group]
    asked = plan.config.max_parallel, plan.spec.priority
    return any(
        job.state is not State.FINISHED
        and (job.raw_spec.get("max_parallel"), job.priority) != asked
        for job in own
    )


def _tell(session: Session, plan: StudyPlan, found: Found, parent: Job, *, recorded: bool) -> None:
    cells, seeds = len(plan.cells), len(plan.config.seeds)
    size = f"{cells} cells x {seeds} seed{'s'[: seeds > 1]}"
    if not recorded:
        talk(f"{parent.job_id} is {parent.state}: {size} are there; nothing was submitted")
    else:
        again = "completed" if found.parent is not None else "submitted"
        talk(f"{again} {parent.job_id}: {size}; this terminal may be closed")
        talk(work_text(found, _estimates(session.store, plan)))
    _tell_reuse(found, talk)
    if has_other_pace(plan, found):
        talk("its jobs that were there keep the --priority and --max-parallel they were given")
    answer(parent.job_id)
    for command in (
        f"watch {parent.job_id}",
        f"status --tree {parent.job_id}",
        f"compare {parent.job_id}",
        f"report {parent.job_id}",
    ):
        talk(f"  {program()} {command}")
