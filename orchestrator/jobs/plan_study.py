"""From a study file and overrides to planned trainings and evaluations. No effect on anything.

Every cell is planned as `gcpctl submit train` would plan it, so every mistake of every cell
surfaces here, at once and with the cell's name.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from orchestrator.jobs import ids
from orchestrator.jobs.checkpoints import ResolvedCheckpoint
from orchestrator.jobs.errors import NotFoundError
from orchestrator.jobs.job import STUDY, TAG_JOB_ID, TAG_KIND, TAG_SPEC, Job
from orchestrator.jobs.plan import Plan, Request, plan_train
from orchestrator.jobs.plan_eval import EvalPlan, EvalRequest, KnownNetwork, plan_eval
from orchestrator.jobs.recipes import load_recipe
from orchestrator.jobs.spec import JobSpec, Resources, spec_text
from orchestrator.jobs.states import State
from orchestrator.jobs.study import StudyCell, expand
from orchestrator.jobs.study_file import as_override, load_study
from workloads.config.ablation import AblationConfig
from workloads.config.errors import ConfigError, Problem, did_you_mean

PACK = "cells"
"""Packs hold jobs of equal resources; nothing else must be equal, so studies share them."""
_SPEC_LIMIT = 8000


@dataclass(frozen=True)
class StudyRequest:
    """What the command line asked for, besides the study and its overrides.

    Attributes:
        only: Patterns of cells' names; others than the baseline are left out.
        train: Options that every training is planned with; its name and seed are not looked at.
    """

    name: str | None = None
    only: tuple[str, ...] = ()
    train: Request = field(default_factory=Request)


@dataclass(frozen=True)
class PlannedCell:
    """A cell and its trainings, one for each seed of the study, in their order."""

    cell: StudyCell
    plans: tuple[Plan, ...]


@dataclass(frozen=True)
class StudyPlan:
    """A study, ready to be recorded.

    Attributes:
        name: Of its file, without the ending.
        source: How messages name the file.
        job_id: Of the parent, should it be a new one.
        cells: The baseline first.
    """

    name: str
    source: str
    job_id: str
    config: AblationConfig
    cells: tuple[PlannedCell, ...]
    overrides: tuple[str, ...]
    only: tuple[str, ...] = ()

    @property
    def baseline(self) -> PlannedCell:
        """The cell that the others are compared with."""
        return self.cells[0]

    @property
    def spec(self) -> JobSpec:
        """Of the parent: the job that reports when all others are done."""
        first = self.baseline.plans[0].spec
        return JobSpec(
            job_id=self.job_id,
            kind=STUDY,
            recipe=self.name,
            study=first.study,
            description=self.config.question,
            config=self.config.model_dump(mode="json"),
            resources=Resources(),
            priority=first.priority,
        )

    @cached_property
    def config_sha256(self) -> str:
        """Digest of the question and of every training: equal digests are the same study."""
        config = self.config.model_dump(mode="json", exclude={"max_parallel", "pack"})
        content = {
            "config": config,
            "experiment": self.spec.study,
            "cells": {
                planned.cell.name: [
                    [plan.config_sha256, plan.spec.resources.model_dump(mode="json")]
                    for plan in planned.plans
                ]
                for planned in self.cells
            },
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def trainings(self) -> Iterable[tuple[PlannedCell, int, Plan]]:
        """Yield cell, seed and training in the order they are to run.

        All cells of one seed come before the next seed, so that there is something to compare
        long before the end.
        """
        for place, seed in enumerate(self.config.seeds):
            for planned in self.cells:
                yield planned, seed, planned.plans[place]


def plan_study(name: str, overrides: Sequence[str], request: StudyRequest) -> StudyPlan:
    """Plan all trainings of a study, and see that their evaluations can be planned.

    Args:
        name: Name of a study, or path of a YAML file.
        overrides: See `load_study`; `seeds=[0,1]` among them.

    Raises:
        NotFoundError: No such study, or no cell of such a name.
        ConfigError: Anything that cannot be used, of all cells, each with its cell's name.
    """
    study, source, config = load_study(name, overrides)
    if request.name is not None and (problem := ids.name_problem(request.name)):
        raise ConfigError("--name", [Problem("", f"{request.name!r} cannot be a name", problem)])
    load_recipe(config.recipe, "train")  # one message, not one for each cell
    cells = _chosen(expand(config), request.only)
    planned: list[PlannedCell] = []
    problems: list[Problem] = []
    for cell in cells:
        try:
            planned.append(_plan_cell(config, cell, request))
        except ConfigError as error:
            problems += [replace(p, path=_in_cell(cell, p.path)) for p in error.problems]
    problems = _once(problems, len(cells))
    problems += _equal_cells(planned) + _of_other_studies(planned)
    if problems:
        raise ConfigError(source, problems)
    plan = StudyPlan(
        name=study,
        source=source,
        job_id=request.name or ids.new_job_id(STUDY, study),
        config=config,
        cells=tuple(planned),
        overrides=tuple(overrides),
        only=request.only,
    )
    if len(spec_text(plan.spec)) > _SPEC_LIMIT:
        text = f"as JSON it has more than the {_SPEC_LIMIT} characters that MLflow stores in a tag"
        raise ConfigError(source, [Problem("", text, "ask in several studies")])
    for each in plan.cells:
        if config.evaluate is not None:
            plan_evaluation(plan, each.cell, as_job(each.plans[0]), Path("/"))
    return plan


def plan_evaluation(plan: StudyPlan, cell: StudyCell, job: Job, storage: Path) -> EvalPlan:
    """Plan the evaluation of a cell's training, which need not have begun.

    Args:
        job: The training.
        storage: Where the cluster keeps checkpoints.
    """
    config = plan.config
    assert config.evaluate is not None
    which = config.evaluate.checkpoint
    checkpoint = ResolvedCheckpoint(f"{storage / job.job_id}:{which}", f"{job.job_id}:{which}", job)
    found = plan_eval(
        checkpoint,
        KnownNetwork(),
        [f"study={json.dumps(plan.spec.study, ensure_ascii=False)}"],
        EvalRequest(
            options={"crops": config.evaluate.crops},
            name=ids.new_member_id(plan.name, cell.name, job.spec.config["seed"], kind="eval"),
            priority=plan.spec.priority,
            after=(job.job_id,),
        ),
    )
    return replace(found, spec=_grouped(config, found.spec))


def as_job(plan: Plan) -> Job:
    """Return a planned training as the job that it will be."""
    tags = {
        TAG_JOB_ID: plan.spec.job_id,
        TAG_KIND: plan.spec.kind,
        TAG_SPEC: spec_text(plan.spec),
    }
    return Job("", "", State.SCHEDULED, tags, {}, 0, None, "")


def _plan_cell(config: AblationConfig, cell: StudyCell, request: StudyRequest) -> PlannedCell:
    """Plan a cell with the first seed; the other seeds differ from that in the seed alone."""
    laid_over = {**config.overrides, **cell.overrides}
    overrides = [as_override(key, value) for key, value in laid_over.items()]
    train = replace(request.train, name=None, seed=config.seeds[0])
    plan = plan_train(config.recipe, overrides, train)
    return PlannedCell(cell, tuple(_with_seed(plan, config, seed) for seed in config.seeds))


def _with_seed(plan: Plan, config: AblationConfig, seed: int) -> Plan:
    spec = plan.spec.model_copy(update={"config": {**plan.spec.config, "seed": seed}})
    return replace(
        plan,
        spec=_grouped(config, spec),
        config=plan.config.model_copy(update={"seed": seed}),
        overrides=(*plan.overrides, f"seed={seed}"),
    )


def _grouped(config: AblationConfig, spec: JobSpec) -> JobSpec:
    alone = spec.resources.num_workers == spec.resources.least_workers == 1
    pack = PACK if config.pack and alone else ""
    return spec.model_copy(update={"max_parallel": config.max_parallel, "pack": pack})


def _chosen(cells: tuple[StudyCell, ...], only: tuple[str, ...]) -> tuple[StudyCell, ...]:
    """Return the cells whose names match one of the patterns, and the baseline."""
    if not only:
        return cells
    names = [cell.name for cell in cells]
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            known = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
            hint = did_you_mean(pattern, names) or f"cells: {known}"
            raise NotFoundError(f"--only: no cell is named {pattern!r}", hint)
    return tuple(
        cell
        for cell in cells
        if cell.is_baseline or any(fnmatchcase(cell.name, pattern) for pattern in only)
    )


def _in_cell(cell: StudyCell, path: str) -> str:
    return f"cell {cell.name}: {path}" if path else f"cell {cell.name}"


def _once(problems: list[Problem], num_cells: int) -> list[Problem]:
    """Return what is wrong with every cell in the same way as one problem, without their names."""
    by_text: dict[str, list[Problem]] = {}
    for problem in problems:
        text = str(problem).partition(": ")[2]
        by_text.setdefault(text, []).append(problem)
    found: list[Problem] = []
    for same in by_text.values():
        if len(same) == num_cells > 1:
            path = same[0].path.partition(": ")[2]
            found.append(replace(same[0], path=f"every cell: {path}" if path else "every cell"))
        else:
            found += same
    return found


def _equal_cells(planned: Sequence[PlannedCell]) -> list[Problem]:
    first: dict[str, str] = {}
    found = []
    for each in planned:
        name, digest = each.cell.name, each.plans[0].config_sha256
        other = first.setdefault(digest, name)
        if other != name:
            text = f"is the same training as the cell {other}: not a key of its config differs"
            found.append(Problem(f"cell {name}", text, "drop one of the levels"))
    return found


def _of_other_studies(planned: Sequence[PlannedCell]) -> list[Problem]:
    names = sorted({each.plans[0].spec.study for each in planned})
    if len(names) < 2:
        return []
    text = f"the cells would stand in several: {', '.join(names)}"
    return [Problem("study", text, "give one to all: study=NAME")]
