"""`gcpctl recipes`: what can be submitted."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.commands.recipes_best import best
from orchestrator.cli.options import complete_recipes, output_option
from orchestrator.cli.output import answer, answer_json, table, talk
from orchestrator.jobs.errors import EXIT_USAGE, GcpctlError
from orchestrator.jobs.recipes import KINDS, kind_of, load_recipe, recipe_files
from workloads.config.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.jobs.plan import Plan
    from orchestrator.jobs.plan_study import StudyPlan


_SPACES = "tune"
"""Kind of the search spaces, which are listed and shown beside the recipes."""
_HEADERS = {
    "train": ("RECIPE", "DATA", "TOP-1", "DESCRIPTION"),
    "ablation": ("STUDY", "DATA", "QUESTION"),
    _SPACES: ("SEARCH SPACE", "DESCRIPTION"),
}


@click.group(no_args_is_help=True)
def recipes() -> None:
    """List, show, plot and check recipes."""


@recipes.command("list")
@click.argument("words", nargs=-1)
@click.option(
    "--kind", type=click.Choice([*KINDS, _SPACES]), help="Only what is for this kind of job."
)
@output_option
def list_(words: tuple[str, ...], kind: str | None, output: str) -> None:
    """List what comes with gcpctl: recipes, studies and search spaces.

    With WORDS, those that have all of them in name or data. TOP-1 is the published result that a
    recipe reproduces, in percent. What each is for: `submit train RECIPE`, `submit ablation STUDY`,
    `tune RECIPE --space SPACE`.

    \b
      gcpctl recipes list imagenet_resnet50
      gcpctl recipes list cub200 isqrt
    """
    kinds = (kind,) if kind else (*KINDS, _SPACES)
    found = [_summary(name, k) for k in kinds for name in recipe_files(k)]
    found = [r for r in found if all(word in f"{r['name']} {r['data'] or ''}" for word in words)]
    if output == "json":
        answer_json(found)
        return
    if not found:
        talk(f"no recipe has {' and '.join(words)} in its name or data")
        return
    sections = [[_row(r) for r in found if r["kind"] == k] for k in kinds]
    tables = [table(_HEADERS[k], rows) for k, rows in zip(kinds, sections, strict=True) if rows]
    answer("\n\n".join(tables))


@recipes.command(no_args_is_help=True)
@click.argument("recipe", shell_complete=complete_recipes)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--resolved", is_flag=True, help="Every key, defaults included, and who said its value."
)
@output_option
def show(recipe: str, overrides: tuple[str, ...], resolved: bool, output: str) -> None:
    """Print the file of RECIPE and name what it builds on; or its full config.

    RECIPE is a recipe, a study or a search space of `gcpctl recipes list`, or a YAML file. With
    --resolved, with KEY=VALUE or as JSON it is the full config: every key with its value.

    \b
      gcpctl recipes show imagenet_resnet50_isqrt_lrfast
      gcpctl recipes show imagenet_resnet50_isqrt_lrfast --resolved
    """
    if not (resolved or overrides or output == "json"):
        _show_file(recipe)
        return
    if kind_of(recipe) == "ablation":
        _show_study(recipe, overrides, output)
        return
    plan = _plan(recipe, overrides)
    if output == "json":
        answer_json(plan.spec.model_dump(mode="json"))
        return
    from orchestrator.results.recipe_page import resolved_page

    answer(resolved_page(plan))


@recipes.command(no_args_is_help=True)
@click.argument("names", nargs=-1, metavar="RECIPE... [KEY=VALUE]...", required=True,
                shell_complete=complete_recipes)  # fmt: skip
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Picture file; RECIPE.png."
)
@click.option(
    "--steps-per-epoch",
    type=click.IntRange(1),
    help="Of rates that change with each step; else as the recipe says, or 100.",
)
def plot(names: tuple[str, ...], out: Path | None, steps_per_epoch: int | None) -> None:
    """Draw the learning rate of each RECIPE over its epochs.

    Several recipes are drawn into one picture; KEY=VALUE changes all of them.

    \b
      gcpctl recipes plot imagenet_resnet50_isqrt_lrfast
      gcpctl recipes plot digits_resnet_isqrt schedule=linear epochs=40 --out linear.png
    """
    chosen = [name for name in names if "=" not in name]
    overrides = tuple(name for name in names if "=" in name)
    if not chosen:
        raise click.UsageError("name at least one recipe; see: gcpctl recipes list")
    from orchestrator.results.schedule_plot import curve_of, draw_schedules

    curves = [curve_of(name, _plan(name, overrides).config, steps_per_epoch) for name in chosen]
    path = out or Path(f"{chosen[0]}.png" if len(chosen) == 1 else "schedules.png")
    try:
        draw_schedules(curves, path)
    except (OSError, ValueError) as error:  # no such folder; an ending of no kind of picture
        raise click.BadParameter(f"cannot write {path}: {error}", param_hint="--out") from None
    header = ("RECIPE", "EPOCHS", "FIRST", "PEAK", "LAST", "LEARNING RATE")
    answer(table(header, [curve.row() for curve in curves]))
    talk(f"drawn with {', '.join(sorted({str(c.steps_per_epoch) for c in curves}))} steps an epoch")
    answer(str(path))


@recipes.command(no_args_is_help=True)
@click.argument("recipe", shell_complete=complete_recipes)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def check(recipe: str, overrides: tuple[str, ...]) -> None:
    """Check RECIPE, a name or a YAML file, without submitting it.

    Of a study every cell is checked.
    """
    if kind_of(recipe) == "ablation":
        study = _plan_study(recipe, overrides)
        size = f"{len(study.cells)} cells x {len(study.config.seeds)} seeds"
        talk(f"{study.source} is in order: {size}")
        plan = study.baseline.plans[0]
    else:
        plan = _plan(recipe, overrides)
        talk(f"{plan.recipe.path} is in order: {plan.spec.resources.describe()}")
    from orchestrator.results.recipe_page import to_be_given

    if asked := to_be_given(plan):
        talk(f"to be given when it is submitted: {' '.join(f'{key}=...' for key in asked)}")


recipes.add_command(best)


def _plan(recipe: str, overrides: tuple[str, ...]) -> "Plan":
    if recipe in recipe_files(_SPACES):
        hint = f"see what it would try: gcpctl tune RECIPE --space {recipe} --dry-run"
        raise GcpctlError(f"{recipe} is a search space, no config", hint, exit_code=EXIT_USAGE)
    from orchestrator.jobs.plan import Request, plan_train

    return plan_train(recipe, overrides, Request(folder=Path.cwd(), to_be_given=True))


def _plan_study(name: str, overrides: tuple[str, ...]) -> "StudyPlan":
    from orchestrator.jobs.plan import Request
    from orchestrator.jobs.plan_study import StudyRequest, plan_study

    look = Request(folder=Path.cwd(), to_be_given=True)
    return plan_study(name, overrides, StudyRequest(train=look))


def _show_study(name: str, overrides: tuple[str, ...], output: str) -> None:
    study = _plan_study(name, overrides)
    document = study.config.model_dump(mode="json")
    if output == "json":
        answer_json(document)
        return
    from workloads.config.document import dump_document

    answer(f"# {study.source}")
    answer(dump_document(document).rstrip())


def _show_file(name: str) -> None:
    spaces = recipe_files(_SPACES)
    recipe = None if name in spaces else load_recipe(name, kind_of(name))
    path = spaces[name][1] if recipe is None else recipe.path
    answer(f"# {path}")
    for layer in () if recipe is None else recipe.layers[1:]:
        answer(f"# builds on {layer.name}: {layer.path}")
    answer(path.read_text(encoding="utf-8-sig").rstrip())


def _summary(name: str, kind: str) -> dict[str, Any]:
    if kind == _SPACES:
        return _summary_of_space(name)
    try:
        heading = load_recipe(name, kind).heading
    except ConfigError as error:  # one bad file must not hide the others
        heading = {"description": f"cannot be read: {error.problems[0]}"}
    if kind == "ablation":
        base = _summary(str(heading.get("recipe")), "train") if "recipe" in heading else {}
        said = {"data": base.get("data"), "description": heading.get("question", "")}
        heading = said | heading
    data = heading.get("data", "digits")
    published = heading.get("published")
    return {
        "name": name,
        "kind": kind,
        "data": data if isinstance(data, str) else str(data.get("name", "digits")),
        "network": heading.get("network"),
        "study": heading.get("study", "default"),
        "published": published if isinstance(published, dict) else {},
        "description": str(heading.get("description", "")).strip().split("\n")[0],
    }


def _summary_of_space(name: str) -> dict[str, Any]:
    """Return the same keys; a space is for any recipe that has what it varies."""
    from orchestrator.jobs.sweep_options import load_space

    try:
        description = load_space(name).description
    except ConfigError as error:
        description = f"cannot be read: {error.problems[0]}"
    nothing: dict[str, Any] = {"data": None, "network": None, "study": None, "published": {}}
    return {"name": name, "kind": _SPACES, **nothing, "description": description}


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    """Return what stands under the header of its kind."""
    cells = {
        "RECIPE": found["name"],
        "STUDY": found["name"],
        "SEARCH SPACE": found["name"],
        "DATA": found["data"],
        "TOP-1": _percent(found["published"].get("top1")),
        "QUESTION": found["description"],
        "DESCRIPTION": found["description"],
    }
    return tuple(cells[column] for column in _HEADERS[found["kind"]])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
