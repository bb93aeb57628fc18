"""The docs say what the code does."""

import re
from pathlib import Path

import pytest

from orchestrator.cli.main import COMMANDS, cli
from orchestrator.jobs.recipes import recipe_files
from tests.architecture.cli_docs import TARGET, commands, render
from tests.architecture.recipe_docs import plan

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_cli_page_is_up_to_date():
    assert TARGET.read_text(encoding="utf-8") == render(), "run: make docs"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_in_the_table_is_the_commands_own_first_line(name):
    command = {path[-1]: c for path, c in commands(cli, ("gcpctl",)) if len(path) == 2}[name]
    assert command.help is not None
    assert command.help.split("\n")[0] == COMMANDS[name].help


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_named_in_the_docs_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for name in re.findall(
        r"`((?:orchestrator|workloads|cluster|tests|docs)/[\w./-]+\.(?:py|md|yaml))`", text
    ):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("recipe", recipe_files("train"))
def test_every_recipe_plans_and_says_what_to_expect(recipe):
    planned = plan(recipe)
    assert planned.spec.description
    assert planned.recipe.path.read_text().startswith(("#", "published:", "description:"))


def test_readme_opens_with_the_two_commands_and_stays_short():
    text = (ROOT / "README.md").read_text()
    assert text.index("make quickstart") < 800
    assert text.index("make test") < 800
    assert len(text.splitlines()) < 80
