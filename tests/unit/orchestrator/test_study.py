"""Cells of studies, counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.jobs.study import count_cells, expand, problems_of
from workloads.config.ablation import MAX_JOBS, AblationConfig

POOLING = {"key": "model.head.pooling", "levels": ["gap", "cov", "isqrt"]}
STRIDE = {"key": "model.backbone.last_stride", "levels": [2, 1]}
WIDTH = {"key": "model.head.reduced_channels", "levels": [64, 128, 256], "baseline": "256"}


def study(mode: str = "one-at-a-time", **factors) -> AblationConfig:
    document = {"question": "Which?", "recipe": "r", "mode": mode, "seeds": (0,)}
    return AblationConfig.model_validate(
        document | {"factors": factors or {"pooling": POOLING, "stride": STRIDE, "width": WIDTH}}
    )


def names(config: AblationConfig) -> list[str]:
    return [cell.name for cell in expand(config)]


def test_one_at_a_time_is_the_baseline_and_every_other_level_alone():
    assert names(study()) == [
        "pooling=gap,stride=2,width=256",
        "pooling=cov",
        "pooling=isqrt",
        "stride=1",
        "width=64",
        "width=128",
    ]


def test_a_grid_is_every_combination_with_the_baseline_first():
    found = names(study("grid"))
    assert len(found) == len(set(found)) == 3 * 2 * 3
    assert found[0] == "pooling=gap,stride=2,width=256"
    assert "pooling=isqrt,stride=1,width=64" in found


def test_pairs_add_every_two_factors_together():
    found = names(study("pairs"))
    together = [name for name in found[1:] if "," in name]
    # cov and isqrt with stride 1; with 64 and 128; stride 1 with 64 and 128
    assert len(together) == 2 * 1 + 2 * 2 + 1 * 2
    assert len(found) == 6 + 8
    assert all(name.count(",") == 1 for name in together)


def test_leave_one_out_is_all_last_levels_and_each_factor_put_back():
    config = study(
        "leave-one-out",
        aug={"levels": {"off": {}, "on": {"augment.flip": 0.5}}},
        ema={"levels": {"off": {}, "on": {"ema.decay": 0.99}}},
        smooth={"levels": {"off": {}, "on": {"label_smoothing": 0.1}}},
    )
    assert names(config) == [
        "aug=off,ema=off,smooth=off",
        "aug=on,ema=on,smooth=on",
        "ema=on,smooth=on",
        "aug=on,smooth=on",
        "aug=on,ema=on",
    ]
    full = expand(config)[1]
    assert full.overrides == {"augment.flip": 0.5, "ema.decay": 0.99, "label_smoothing": 0.1}
    assert not full.is_baseline


def test_with_one_factor_leaving_it_out_is_the_baseline():
    config = study("leave-one-out", stride=STRIDE)
    assert names(config) == ["stride=2", "stride=1"]


def test_a_cell_says_which_levels_it_has_and_what_differs():
    baseline, cov, *_, last = expand(study())
    assert baseline.is_baseline
    assert baseline.differs == {}
    assert baseline.overrides["model.head.reduced_channels"] == 256
    assert cov.differs == {"model.head.pooling": "cov"}
    assert cov.overrides["model.backbone.last_stride"] == 2
    assert last.levels == {"pooling": "gap", "stride": "2", "width": "128"}


def test_a_key_that_only_the_baseline_sets_is_not_said_to_differ_in_value():
    config = study(head={"levels": {"gap": {"a": 1, "b": 2}, "other": {"a": 1, "b": 3}}})
    assert expand(config)[1].differs == {"b": 3}


factor = st.dictionaries(st.sampled_from("abcdefg"), st.just({}), min_size=1, max_size=5)


@given(
    st.dictionaries(st.sampled_from(["w", "x", "y", "z"]), factor, min_size=1, max_size=4),
    st.sampled_from(["grid", "one-at-a-time", "leave-one-out", "pairs"]),
)
def test_as_many_cells_as_counted_each_named_differently_and_one_baseline(levels, mode):
    factors = {
        name: {"levels": {level: {f"{name}.{level}": 1} for level in found}}
        for name, found in levels.items()
    }
    cells = expand(study(mode, **factors))
    assert len(cells) == count_cells(study(mode, **factors))
    assert len({cell.name for cell in cells}) == len(cells)
    assert [cell.is_baseline for cell in cells] == [True] + [False] * (len(cells) - 1)
    assert len({tuple(cell.levels.items()) for cell in cells}) == len(cells)


# --- refused -------------------------------------------------------------------------------------


def told(config: AblationConfig) -> list[str]:
    return [str(problem) for problem in problems_of(config)]


def test_a_sound_study_has_no_problems():
    assert told(study()) == told(study("grid")) == told(study("pairs")) == []


def test_a_huge_grid_is_counted_and_not_made():
    levels = {"key": "epochs", "levels": list(range(1, 11))}
    factors = {f"f{i}": {**levels, "key": f"k{i}"} for i in range(12)}
    (text,) = told(study("grid", **factors))
    assert "1,000,000,000,000 cells (grid) with 1 seeds" in text
    assert f"at most {MAX_JOBS:,}" in text


def test_evaluations_count_as_jobs():
    wide = {"key": "epochs", "levels": list(range(1, 1002))}
    assert len(told(study(epochs=wide))) == 1
    alone = study(epochs=wide).model_copy(update={"evaluate": None})
    assert told(alone) == []


def test_two_factors_of_one_key_are_refused():
    config = study(
        a={"key": "epochs", "levels": [1, 2]}, b={"levels": {"x": {}, "y": {"epochs": 3}}}
    )
    assert told(config) == [
        "factors.b: a sets epochs as well; which of the two a cell had could not be told "
        "(let one of them set it, or make them one)"
    ]


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        ({"model.head.pooling": "isqrt"}, "model.head.pooling"),
        ({"model.head": {"pooling": "isqrt"}}, "model.head.pooling"),
        ({"seed": 3}, "seed"),
    ],
)
def test_an_override_of_what_a_factor_varies_is_refused(overrides, path):
    config = study(pooling=POOLING).model_copy(update={"overrides": overrides})
    (problem,) = problems_of(config)
    assert problem.path == path


def test_an_override_inside_a_level_that_sets_it_is_refused():
    levels = {"three": {"model.head.pooling": {"name": "isqrt", "num_iters": 3}}, "gap": {}}
    config = study(pooling={"levels": levels})
    config = config.model_copy(update={"overrides": {"model.head.pooling.num_iters": 5}})
    assert len(told(config)) == 1


def test_an_override_above_a_factor_is_what_the_factor_varies():
    config = study(iters={"key": "model.head.pooling.num_iters", "levels": [3, 5]})
    assert told(config.model_copy(update={"overrides": {"model.head.pooling": "isqrt"}})) == []


@pytest.mark.parametrize("key", ["seed", "study"])
def test_keys_that_are_the_studys_own(key):
    (text,) = told(study(f={"key": key, "levels": [1, 2]}))
    assert f"sets {key}" in text


def test_leaving_out_what_is_the_baseline_is_refused():
    (text,) = told(study("leave-one-out", stride={**STRIDE, "baseline": "1"}))
    assert "its last level, 1, is also its baseline" in text
