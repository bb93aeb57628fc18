import pytest

from workloads.config.batches import batch_size_per_worker
from workloads.config.errors import ConfigError


@pytest.mark.parametrize(("batch", "workers", "want"), [(128, 4, 32), (7, 1, 7), (3, 3, 1)])
def test_equal_shares(batch: int, workers: int, want: int) -> None:
    assert batch_size_per_worker(batch, workers, "x") == want


@pytest.mark.parametrize(
    ("batch", "workers", "near"),
    [(128, 3, "try 126 or 129"), (2, 3, "try 3"), (5, 4, "try 4 or 8")],
)
def test_what_would_divide_is_said(batch: int, workers: int, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        batch_size_per_worker(batch, workers, "my.yaml")
    (problem,) = caught.value.problems
    assert caught.value.source == "my.yaml"
    assert (problem.path, problem.hint) == ("global_batch_size", near)
