"""`gcpctl recipes`: what can be submitted."""

import click

from orchestrator.cli.options import complete_recipes, output_option
from orchestrator.cli.output import answer, answer_json, table, talk
from orchestrator.jobs.plan import Plan, Request, plan_train
from orchestrator.jobs.recipes import recipe_files
from workloads.config.document import dump_document


@click.group(no_args_is_help=True)
def recipes() -> None:
    """List, show and check recipes."""


@recipes.command("list")
@output_option
def list_(output: str) -> None:
    """List the recipes that come with gcpctl."""
    from orchestrator.jobs.recipes import load_recipe

    found = [
        {
            "name": name,
            "kind": kind,
            "description": str(load_recipe(name, kind).document.get("description", "")).strip(),
        }
        for name, (kind, _) in recipe_files().items()
    ]
    if output == "json":
        answer_json(found)
        return
    rows = [(r["name"], r["kind"], r["description"].split("\n")[0]) for r in found]
    answer(table(("RECIPE", "KIND", "DESCRIPTION"), rows))


@recipes.command(no_args_is_help=True)
@click.argument("recipe", shell_complete=complete_recipes)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@output_option
def show(recipe: str, overrides: tuple[str, ...], output: str) -> None:
    """Print the full config of RECIPE, defaults and overrides included."""
    plan = plan_train(recipe, overrides, Request())
    if output == "json":
        answer_json(plan.spec.model_dump(mode="json"))
        return
    answer(f"# {plan.recipe.path}")
    answer(dump_document(_as_recipe(plan)).rstrip())


@recipes.command(no_args_is_help=True)
@click.argument("recipe", shell_complete=complete_recipes)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def check(recipe: str, overrides: tuple[str, ...]) -> None:
    """Check RECIPE, a name or a YAML file, without submitting it."""
    plan = plan_train(recipe, overrides, Request())
    talk(f"{plan.recipe.path} is in order: {plan.spec.resources.describe()}")


def _as_recipe(plan: Plan) -> dict[str, object]:
    spec = plan.spec
    job = spec.resources.model_dump() | {
        "priority": spec.priority,
        "max_retries": spec.max_retries,
        "time_limit_s": spec.time_limit_s,
    }
    heading = {"description": spec.description, "study": spec.study, "job": job}
    return heading | spec.config
