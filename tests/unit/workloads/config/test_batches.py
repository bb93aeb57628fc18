import pytest

from workloads.config.batches import batch_size_per_worker, worker_counts
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


@pytest.mark.parametrize(
    ("batch", "workers", "near"),
    [(64, 64, "try 128"), (12, 4, "try 8 or 16"), (10, 3, "try 6 or 12")],
)
def test_pairs_stay_together(batch: int, workers: int, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        batch_size_per_worker(batch, workers, "x", in_pairs=True)
    (problem,) = caught.value.problems
    assert problem.hint == near
    assert batch_size_per_worker(12, 3, "x", in_pairs=True) == 4


@pytest.mark.parametrize(
    ("batch", "ends", "in_pairs", "want"),
    [
        (64, (2, 8), False, (2, 4, 8)),
        (64, (3, 7), False, (4,)),
        (96, (1, 8), False, (1, 2, 3, 4, 6, 8)),
        (12, (1, 12), True, (1, 2, 3, 6)),
        (7, (1, 7), False, (1, 7)),
    ],
)
def test_counts_that_share_a_batch(
    batch: int, ends: tuple[int, int], in_pairs: bool, want: tuple[int, ...]
) -> None:
    assert worker_counts(batch, *ends, "x", in_pairs=in_pairs) == want
    for count in want:
        batch_size_per_worker(batch, count, "x", in_pairs=in_pairs)


@pytest.mark.parametrize(
    ("batch", "ends", "hint"),
    [(64, (5, 7), "4 or 8 would"), (7, (2, 6), "1 or 7 would"), (64, (65, 70), "64 would")],
)
def test_which_counts_would_do_is_said(batch: int, ends: tuple[int, int], hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        worker_counts(batch, *ends, "x")
    (problem,) = caught.value.problems
    assert problem.hint.startswith(hint)
