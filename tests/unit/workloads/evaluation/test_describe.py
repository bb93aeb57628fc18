"""What a checkpoint says of itself before it is evaluated."""

from workloads.config.model import ModelConfig
from workloads.evaluation.__main__ import VERBS
from workloads.evaluation.describe import describe_weights
from workloads.models.weights.model_file import ModelFile, save_model


def test_a_checkpoint_says_all_that_an_evaluation_begins_with(
    save_job, digits_state, digits_config
):
    found = describe_weights({"weights": str(save_job(digits_state))})
    assert found["model"] == digits_config.model.model_dump(mode="json")
    assert found["images"] == digits_config.images.model_dump(mode="json")
    assert (found["in_channels"], found["num_classes"]) == (1, 10)
    assert found["classes"] == [str(digit) for digit in range(10)]
    assert found["network"].startswith("small_resnet with isqrt; a checkpoint")


def test_a_file_says_what_it_knows(digits_net, digits_config, tmp_path):
    model = ModelFile(
        config=ModelConfig.model_validate(digits_config.model.model_dump()),
        in_channels=1,
        num_classes=10,
        classes=None,
        state=dict(digits_net.state_dict()),
    )
    save_model(model, tmp_path / "net.gcpnet", force=False)
    found = describe_weights({"weights": str(tmp_path / "net.gcpnet")})
    assert (found["images"], found["classes"]) == (None, None)
    assert found["num_classes"] == 10


def test_it_is_a_verb():
    assert VERBS["describe"] == "workloads.evaluation.describe:describe_weights"
