"""What a pooling's config says of the pooling."""

import pytest

from workloads.config.model import ModelConfig
from workloads.config.train import TrainConfig
from workloads.pooling.registry import POOLINGS

LEARNT = {"name": "scale_norm", "learnable": True}


@pytest.mark.parametrize("pooling", [*({"name": name} for name in POOLINGS), LEARNT], ids=str)
def test_it_has_weights_where_its_config_says_so(pooling):
    config = ModelConfig.model_validate({"head": {"pooling": pooling}}).head.pooling
    built = POOLINGS[config.name](in_channels=32, **config.model_dump(exclude={"name"}))
    assert config.has_weights == any(True for _ in built.parameters())


@pytest.mark.parametrize(
    ("pooling", "reduced", "parts", "is_refused"),
    [
        ("gap", 32, ["features", "reduction", "classifier"], True),
        ("gap", None, ["features", "classifier"], True),
        ("gap", 32, ["features", "classifier"], False),
        ("layer_norm", 32, ["features", "reduction", "classifier"], False),
        ("layer_norm", 32, ["features", "reduction", "pooling", "classifier"], True),
    ],
)
@pytest.mark.parametrize("until", [None, 2])
def test_freezing_all_that_has_weights_is_met_in_the_config(
    pooling, reduced, parts, is_refused, until
):
    document = {
        "model": {"head": {"pooling": {"name": pooling}, "reduced_channels": reduced}},
        "freeze": {"parts": parts, "until_epoch": until},
    }
    if not is_refused:
        TrainConfig.model_validate(document)
        return
    with pytest.raises(ValueError, match="none is trained"):
        TrainConfig.model_validate(document)
