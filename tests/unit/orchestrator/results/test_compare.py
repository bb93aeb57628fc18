"""Cells, baselines, differences and warnings."""

import math

import pytest

from orchestrator.jobs.errors import ConflictError, NotFoundError
from orchestrator.results.compare import compare
from orchestrator.results.ordering import in_order
from tests.unit.orchestrator.results.trainings import training


def by_name(comparison):
    return {cell.name: cell for cell in comparison.cells}


def three_seeds(pooling, values, **more):
    return [training(pooling, seed, value, **more) for seed, value in enumerate(values)]


# --- cells ---------------------------------------------------------------------------------------


def test_trainings_that_differ_in_their_seed_alone_are_one_cell():
    found = compare(three_seeds("gap", [90, 91, 92]) + three_seeds("isqrt", [93, 94, 95]))
    assert [cell.name for cell in found.cells] == ["pooling=gap", "pooling=isqrt"]
    assert found.differing_keys == ("model.head.pooling.name",)
    value = by_name(found)["pooling=gap"].values["top1"]
    assert (value.mean, value.deviation, value.n) == (91, 1, 3)


def test_keys_that_change_no_number_do_not_tell_cells_apart():
    two = [
        training("gap", 0, config={"log_every_steps": 1, "data.loader_workers": 0}),
        training("gap", 1, config={"log_every_steps": 50, "data.loader_workers": 8}),
    ]
    assert len(compare(two).cells) == 1


def test_keys_that_follow_from_a_choice_are_shown_on_request():
    two = [training("gap"), training("isqrt", config={"model.head.pooling.num_iters": 5})]
    assert compare(two).differing_keys == ("model.head.pooling.name",)
    every = compare(two, all_keys=True)
    assert every.differing_keys == ("model.head.pooling.name", "model.head.pooling.num_iters")
    assert [cell.name for cell in every.cells] == ["pooling=gap", "pooling=isqrt"]


def test_a_key_that_varies_within_a_choice_is_shown():
    trainings = [
        training("gap"),
        training("isqrt", config={"model.head.pooling.num_iters": 3}, job_id="a"),
        training("isqrt", config={"model.head.pooling.num_iters": 5}, job_id="b"),
    ]
    names = [cell.name for cell in compare(trainings).cells]
    assert names == ["pooling=gap", "pooling=isqrt,num_iters=3", "pooling=isqrt,num_iters=5"]


def test_the_study_names_its_cells():
    cells = [
        *three_seeds("gap", [90, 91, 92], cell="pooling=gap", is_baseline=True),
        *three_seeds("isqrt", [93, 94, 95], cell="plan=b"),
    ]
    assert [cell.name for cell in compare(cells[::-1]).cells] == ["plan=b", "pooling=gap"]
    assert compare(cells[::-1]).baseline == "pooling=gap"


def test_two_studies_share_the_cells_that_are_equal():
    cells = [
        training("gap", 0, cell="pooling=gap"),
        training("gap", 1, cell="pooling=gap,stride=2", job_id="other"),
    ]
    assert [len(cell.trainings) for cell in compare(cells).cells] == [2]


def test_one_config_on_two_commits_is_two_cells_where_the_seeds_meet():
    old = three_seeds("gap", [90, 91, 92])
    new = [
        training("gap", t.seed, 95, job_id=f"new{t.seed}", facts={"commit": "def", "workers": 1})
        for t in old
    ]
    found = compare(old + new)
    assert [cell.name for cell in found.cells] == ["commit=abc", "commit=def"]
    assert found.cells[1].delta.mean == pytest.approx(4.0)
    # On other seeds they are one cell, and the reader is told.
    (cell,) = compare([old[0], new[1]]).cells
    assert len(cell.trainings) == 2
    assert "not all have the same commit" in " ".join(compare([old[0], new[1]]).warnings)


def test_a_seed_that_was_trained_twice_counts_once_and_the_finished_one():
    first = training("gap", 0, 90.0, job_id="first")
    again = training("gap", 0, 92.0, job_id="again")
    failed = training("gap", 0, None, job_id="failed", state="FAILED", reason="no disk\nmore")
    (cell,) = compare([first, again, failed]).cells
    assert (cell.values["top1"].n, cell.values["top1"].mean) == (1, 92.0)
    assert cell.missing == {
        "first": "FINISHED: trained again since, with the same seed",
        "failed": "FAILED: no disk",
    }


def test_names_stay_apart():
    two = [
        training("gap", 0, cell="a=1", job_id="x"),
        training("isqrt", 0, cell="a=1", job_id="y"),
    ]
    assert [cell.name for cell in compare(two).cells] == ["pooling=gap", "pooling=isqrt"]


# --- numbers -------------------------------------------------------------------------------------


def test_differences_are_paired_by_seed():
    base = three_seeds("gap", [80.0, 90.0, 100.0 - 5])
    other = three_seeds("isqrt", [81.0, 91.1, 96.2])
    delta = by_name(compare(base + other[::-1]))["pooling=isqrt"].delta
    assert sorted(delta.values) == pytest.approx([1.0, 1.1, 1.2])
    assert (delta.mean, delta.n, delta.verdict) == (pytest.approx(1.1), 3, "better")
    assert delta.p == pytest.approx(0.00274, abs=1e-5)  # t = 1.1 / (0.1 / sqrt 3) = 19.05


def test_p_is_corrected_for_the_number_of_cells():
    base = three_seeds("gap", [80, 90, 95])
    cells = [three_seeds("isqrt", [81, 91.1, 96.2]), three_seeds("cov", [80.5, 89.8, 95.1])]
    alone = by_name(compare([*base, *cells[0]]))["pooling=isqrt"].delta.p
    both = by_name(compare([*base, *cells[0], *cells[1]]))
    assert both["pooling=isqrt"].delta.p == pytest.approx(2 * alone)


def test_no_verdict_below_three_shared_seeds():
    base = three_seeds("gap", [90, 91, 92])
    other = [training("isqrt", seed, value) for seed, value in ((1, 95), (2, 96.5), (7, 97))]
    found = compare(base + other)
    delta = by_name(found)["pooling=isqrt"].delta
    assert (delta.n, delta.verdict, delta.p) == (2, "too few seeds", None)
    assert by_name(found)["pooling=isqrt"].values["top1"].n == 3
    words = " ".join(found.warnings)
    assert "means are over different seeds" in words
    assert "seeds 0-2" in words
    assert "no verdict below 3 shared seeds: pooling=isqrt" in words


def test_the_loss_is_better_when_it_is_lower():
    def with_loss(pooling, seed, loss):
        return training(pooling, seed, evaluation={"loss": loss, "top1": 90.0})

    cells = [with_loss("gap", s, 0.5 + s) for s in range(3)]
    cells += [with_loss("isqrt", s, 0.4 + s * 1.01) for s in range(3)]
    found = compare(cells, "loss")
    assert by_name(found)["pooling=isqrt"].delta.verdict == "better"
    assert [cell.name for cell in in_order(found, "loss")] == ["pooling=isqrt", "pooling=gap"]
    assert [column.key for column in found.columns] == ["loss", "top1"]


@pytest.mark.parametrize("value", [math.nan, math.inf, 1.7976931348623157e308])
def test_what_is_not_finite_does_not_count_and_is_named(value):
    found = compare([*three_seeds("gap", [90, 91]), training("gap", 2, value)])
    (cell,) = found.cells
    assert cell.values["top1"].n == 2
    assert cell.missing == {"gap-s2": "FINISHED: top-1 is not finite"}


def test_unfinished_trainings_are_listed_and_their_numbers_left_out():
    running = training("gap", 1, 10.0, state="RUNNING")
    (cell,) = compare([training("gap", 0, 90.0), running]).cells
    assert (cell.values["top1"].mean, cell.missing) == (90.0, {"gap-s1": "RUNNING"})


def test_nothing_finished_is_no_error():
    found = compare([training("gap", state="RUNNING"), training("isqrt", state="SCHEDULED")])
    assert [cell.values for cell in found.cells] == [{}, {}]
    assert all(cell.delta is None for cell in found.cells)
    half = compare([training("gap", state="FAILED"), training("isqrt")])
    assert "pooling=gap has no finished training" in " ".join(half.warnings)


# --- which number --------------------------------------------------------------------------------


def test_evaluations_and_validations_are_never_mixed():
    mixed = [training("gap", 0, 90.0), training("isqrt", 0, None, metrics={"val/top1": 70.0})]
    found = compare(mixed)
    assert found.metric.key == "val/top1"
    assert [cell.values["val/top1"].mean for cell in found.cells] == [50.0, 70.0]
    assert "isqrt-s0 is not evaluated" in " ".join(found.warnings)
    explicit = compare(mixed, "eval/top1")
    assert explicit.metric.key == "top1"
    assert by_name(explicit)["pooling=isqrt"].missing == {"isqrt-s0": "FINISHED: not evaluated"}


def test_a_study_waits_for_its_evaluations():
    cells = [training("gap", 0, 90.0, cell="a"), training("isqrt", 0, None, cell="b")]
    found = compare(cells)
    assert found.metric.key == "top1"
    assert by_name(found)["b"].missing == {"isqrt-s0": "FINISHED: not evaluated"}


def test_without_any_evaluation_the_last_validation_is_compared():
    found = compare([training("gap", 0, None), training("isqrt", 0, None)])
    assert (found.metric.key, found.metric.better) == ("val/top1", "higher")
    assert not any("evaluated" in text for text in found.warnings)


def test_an_unknown_metric_is_refused_with_what_there_is():
    with pytest.raises(NotFoundError) as caught:
        compare([training("gap")], "val/top2")
    assert "val/top1" in caught.value.hint


def test_a_metric_of_ones_own_is_compared():
    cells = [training("gap", metrics={"val/top1": 1.0, "pool/rank": 3.0})]
    assert compare(cells, "pool/rank").cells[0].values["pool/rank"].mean == 3.0


# --- baselines -----------------------------------------------------------------------------------

POOLINGS = ("gap", "isqrt", "mpn_eig")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("", "pooling=gap"),
        ("pooling=isqrt", "pooling=isqrt"),
        ("isqrt-s1", "pooling=isqrt"),
        ("mpn", "pooling=mpn_eig"),
    ],
)
def test_baselines_by_name_or_job(wanted, found):
    cells = [t for pooling in POOLINGS for t in three_seeds(pooling, [1, 2, 3])]
    comparison = compare(cells, baseline=wanted)
    assert comparison.baseline == found
    assert [cell.is_baseline for cell in comparison.cells].count(True) == 1


def test_wrong_baselines():
    cells = [training(pooling) for pooling in POOLINGS]
    with pytest.raises(ConflictError, match="fits several cells"):
        compare(cells, baseline="pooling")
    with pytest.raises(NotFoundError) as caught:
        compare(cells, baseline="poling=isqr")
    assert "did you mean 'pooling=isqrt'" in caught.value.hint


def test_trials_have_no_baseline_unless_one_is_named():
    trials = [training(p, kind="trial", cell=f"pooling={p}", top1=None) for p in POOLINGS]
    assert compare(trials).baseline == ""
    assert all(cell.delta is None for cell in compare(trials).cells)
    assert compare(trials, baseline="pooling=gap").cells[1].delta.n == 1


# --- warnings ------------------------------------------------------------------------------------


def test_what_should_be_equal_and_is_not_is_said():
    other = {"commit": "abc", "workers": 4, "evaluation crops": "ten", "data digest": "2"}
    same = {"commit": "abc", "workers": 1, "evaluation crops": "centre", "data digest": "1"}
    words = " ".join(
        compare([training("gap", facts=same), training("isqrt", facts=other)]).warnings
    )
    assert "the same workers: 1 (pooling=gap); 4 (pooling=isqrt)" in words
    assert "evaluation crops: centre (pooling=gap); ten (pooling=isqrt)" in words
    assert "data digest" in words
    assert "commit" not in words


def test_other_images_are_no_surprise_where_they_are_the_question():
    one = training("gap", facts={"data digest": "1"}, config={"data.name": "digits"})
    two = training("gap", facts={"data digest": "2"}, config={"data.name": "cifar10"}, job_id="b")
    assert not any("digest" in text for text in compare([one, two]).warnings)


def test_a_column_that_some_did_not_record_is_said():
    few = [training("gap", 0, metrics={"model/macs": 5.0}), training("gap", 1)]
    assert "MACs is of 1 of 2 trainings" in " ".join(compare(few).warnings)


def test_a_published_number_needs_all_trainings_of_the_cell_to_name_it():
    two = [training("gap", 0, published=76.0), training("gap", 1, published=76.0)]
    assert compare(two).cells[0].published == 76.0
    assert compare([two[0], training("gap", 1)]).cells[0].published is None


def test_nothing_to_compare():
    with pytest.raises(NotFoundError):
        compare([])


# --- order ---------------------------------------------------------------------------------------


def test_orders():
    cells = [training("gap", top1=90), training("isqrt", top1=95), training("cov", top1=80)]
    cells.append(training("mpn_eig", None, None, state="FAILED"))
    found = compare(cells)

    def order(by):
        return [cell.name.partition("=")[2] for cell in in_order(found, by)]

    assert order("top1") == order("delta") == ["isqrt", "gap", "cov", "mpn_eig"]
    assert order("cell") == ["cov", "gap", "isqrt", "mpn_eig"]
    with pytest.raises(NotFoundError, match="no column 'top3'"):
        order("top3")
