"""docs/pooling.md: a section for every pooling, and its examples are what the layers compute."""

import json
import re
from pathlib import Path

import pytest
import torch

from workloads.pooling.registry import POOLINGS

PAGE = Path(__file__).parents[4] / "docs" / "pooling.md"
X = torch.tensor([[[1.0, 2.0, 3.0], [2.0, 0.0, 4.0]]], dtype=torch.float64)

LEARNT_OR_DRAWN = {"svpn", "cbp", "cross_cov"}
"""Their vectors depend on a start vector, a draw or projections; the page says so."""


def sections() -> dict[str, str]:
    """Return the text of the page's sections by the names of poolings in their headings."""
    found = {}
    for part in PAGE.read_text().split("\n## ")[1:]:
        heading, _, text = part.partition("\n")
        found.update(dict.fromkeys(re.findall(r"`(\w+)`", heading), text))
    return found


def examples() -> dict[str, list[float]]:
    """Return the vectors that the page shows, by pooling."""
    found = {}
    for name, text in sections().items():
        for line in re.findall(r"^\*Example\* (.*)$", text, re.MULTILINE):
            named = dict(re.findall(r"`(\w+)` `(\[[^`]*\])`", line))
            lone = re.match(r"`(\[[^`]*\])`", line)
            if vector := named.get(name) or (lone and lone[1]):
                found[name] = json.loads(vector)
    return found


def test_every_pooling_has_its_section() -> None:
    assert set(sections()) == set(POOLINGS)
    for name, text in sections().items():
        assert "*Origin*" in text, name
        assert "*Use*" in text, name
    assert set(examples()) == set(POOLINGS) - LEARNT_OR_DRAWN


@pytest.mark.parametrize("name", sorted(set(POOLINGS) - LEARNT_OR_DRAWN))
def test_examples(name: str) -> None:
    pooling = POOLINGS[name](in_channels=2).eval()
    vector = pooling(X[..., None])[0].tolist()
    assert vector == pytest.approx(examples()[name], abs=1e-6)
