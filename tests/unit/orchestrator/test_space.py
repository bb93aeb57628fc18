"""Search spaces: what is written is what is searched."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.jobs.plan import Request, plan_train
from orchestrator.jobs.space import (
    config_sha256,
    exists,
    grid,
    grid_values,
    in_order,
    label,
    num_trials,
    sample,
    trial_cell,
    trial_config,
    trial_overrides,
)
from orchestrator.jobs.space_text import (
    format_dimension,
    format_domain,
    format_word,
    parse_dimension,
    same,
)
from workloads.config.document import apply_overrides
from workloads.config.errors import ConfigError
from workloads.config.sweep import Choice, Dimension, Integer, SweepConfig, Uniform

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**15), 10**15),
    finite,
    texts,
    st.sampled_from(
        ["gap", "null", "1e-3", " if ", "a) if b=c", "it's", '"', "017", "no", "~", ""]
    ),
)
words = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)
keys = (
    st.lists(words, min_size=1, max_size=3).map(".".join).filter(lambda k: not k.endswith(".name"))
)
choices = st.lists(values, min_size=1, max_size=5).filter(
    lambda found: not any(same(a, b) for i, a in enumerate(found) for b in found[:i])
)


@st.composite
def domains(draw):
    kind = draw(st.sampled_from(["choice", "uniform", "loguniform", "int", "logint"]))
    if kind == "choice":
        return Choice(values=tuple(draw(choices)))
    number = st.integers(-1000, 1000) if kind.endswith("int") else st.floats(-1e6, 1e6)
    if kind.startswith("log"):
        number = st.integers(1, 1000) if kind == "logint" else st.floats(1e-9, 1e6)
    low, high = sorted(draw(st.lists(number, min_size=2, max_size=2, unique=True)))
    if kind.startswith("log"):
        return (Integer if kind == "logint" else Uniform)(low=low, high=high, log=True)
    if kind == "int":
        return Integer(low=low, high=high, step=draw(st.integers(1, 5)))
    return Uniform(low=low, high=high, step=draw(st.none() | st.floats(1e-3, 10.0)))


@st.composite
def dimensions(draw):
    conditions = st.dictionaries(keys, choices.map(tuple), max_size=2)
    return Dimension(key=draw(keys), domain=draw(domains()), when=draw(conditions))


@given(dimensions())
def test_a_dimension_is_read_back_as_it_was_written(dimension):
    again = parse_dimension(format_dimension(dimension))
    assert again == dimension
    # True == 1 == 1.0 in Python, not in a config.
    assert repr(again) == repr(dimension)


@given(values)
def test_a_value_reaches_the_config_as_it_is(value):
    read = apply_overrides({}, [f"key={format_word(value)}"])["key"]
    assert type(read) is type(value)
    assert read == value


def test_the_forms_of_the_help():
    lr = parse_dimension("optim.lr=loguniform(1e-3, 1)")
    assert lr == Dimension(key="optim.lr", domain=Uniform(low=1e-3, high=1.0, log=True))
    iters = parse_dimension(
        " a.b.name = int(1,7,2)  if model.head.pooling.name=isqrt and c in (x, 2)"
    )
    assert iters == Dimension(
        key="a.b",
        domain=Integer(low=1, high=7, step=2),
        when={"model.head.pooling": ("isqrt",), "c": ("x", 2)},
    )
    assert label(iters) == "a.b if model.head.pooling=isqrt and c in (x, 2)"
    assert format_domain(parse_dimension("x=choice(1, 1.0e1, true, ~, no)").domain) == (
        "choice(1, 10.0, true, null, no)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim.lr", "begins with no key (such as optim.lr=loguniform(1e-3, 1))"),
        ("=choice(1)", "begins with no key"),
        ("a..b=choice(1)", "begins with no key"),
        ("optim.lr=0.1", "says no kind of values (one of uniform"),
        ("optim.lr=loguniform(1e-3, 1", "has no closing bracket"),
        (
            "optim.lr=logunifrom(1e-3, 1)",
            "there is no kind 'logunifrom' (did you mean 'loguniform'?)",
        ),
        ("optim.lr=uniform(1, 0.1)", "1 is above 0.1 (the lower first: 0.1, 1)"),
        ("optim.lr=uniform(1, 1)", "the range from 1 to 1 holds nothing to choose from"),
        ("optim.lr=loguniform(0, 1)", "a logarithmic range begins above 0; got 0"),
        ("optim.lr=loguniform(1, 2, 3)", "wants numbers (write loguniform(low, high))"),
        ("optim.lr=uniform(low, 1)", "wants numbers (write uniform(low, high) or uniform"),
        ("optim.lr=uniform(0, 1, 0)", "greater than 0"),
        ("optim.lr=uniform(0, .inf)", "wants finite numbers"),
        ("optim.lr=choice(.nan)", "wants finite numbers"),
        ("epochs=int(1.5, 3)", "wants whole numbers (for any number: uniform or loguniform)"),
        ("epochs=int(true, 3)", "wants numbers"),
        ("epochs=choice()", "has no values"),
        ("epochs=choice(1, 2, 1)", "has 1 twice"),
        ("epochs=choice([1], 2)", "wants values between commas"),
        ("epochs=choice(1, 2 # 3)", "is not YAML"),
        ("epochs=choice(1) when a=b", "goes on with 'when a=b' (a condition: ... if KEY=VALUE)"),
        ("epochs=choice(1) if a", "a condition on a without a value"),
        ("epochs=choice(1) if a=", "a condition on a without a value"),
        ("epochs=choice(1) if a in ()", "a condition on a without a value"),
        ("epochs=choice(1) if a=b or c=d", "goes on with 'or c=d' (join conditions with and)"),
        ("epochs=choice(1) if a=b and a=c", "has two conditions on a (write a in (A, B))"),
    ],
)
def test_what_cannot_be_read_says_what_would_be_right(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_dimension(text)
    assert str(caught.value).startswith(f"--space:\n  {text.strip()}: ")
    assert message in str(caught.value)


def space(*lines):
    return in_order([parse_dimension(line) for line in lines])


POOLINGS = (
    "iters=choice(3, 5) if pooling=isqrt",
    "pooling=choice(gap, isqrt)",
    "lr=choice(0.1, 0.2)",
)


def test_dimensions_come_after_those_they_depend_on():
    assert [d.key for d in space(*POOLINGS)] == ["pooling", "iters", "lr"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a=choice(1)", "a=choice(2)"], "a: stands twice, and both would hold (give conditions"),
        (["a=choice(1) if b=x", "a=choice(2) if b in (x, y)", "b=choice(x, y)"], "stands twice"),
        (["a=choice(1) if b=x"], "b is not searched, so the condition decides nothing"),
        (["a=choice(1) if b=z", "b=choice(x, y)"], "b is never z"),
        (["a=choice(1) if b=1", "b=choice(true, 2)"], "b is never 1"),
        (["a=choice(1) if b=1", "b=int(1, 3)"], "b is no choice (conditions are on choices)"),
        (["a=choice(1) if b=1", "b=choice(1) if a=1"], "a, b: depend on each other in a circle"),
    ],
)
def test_conditions_that_cannot_be_decided_are_refused(lines, message):
    with pytest.raises(ConfigError) as caught:
        space(*lines)
    assert message in str(caught.value)


def test_a_key_may_stand_twice_under_conditions_that_exclude_each_other():
    found = space(
        "optim=choice(sgd, adamw)",
        "optim.lr=choice(0.1) if optim=sgd",
        "optim.lr=choice(0.001, 0.01) if optim=adamw",
    )
    assert list(grid(found)) == [
        {"optim": "sgd", "optim.lr": 0.1},
        {"optim": "adamw", "optim.lr": 0.001},
        {"optim": "adamw", "optim.lr": 0.01},
    ]
    assert len({label(dimension) for dimension in found}) == 3


def test_a_grid_has_every_point_once():
    points = list(grid(space(*POOLINGS)))
    assert len(points) == 2 * (1 + 2)
    assert len({tuple(sorted(point.items())) for point in points}) == len(points)
    sweep = SweepConfig(recipe="r", base={}, space=space(*POOLINGS), search="grid", num_trials=1)
    assert num_trials(sweep) == 6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=int(1, 7, 2)", [1, 3, 5, 7]),
        ("x=int(1, 6, 2)", [1, 3, 5]),
        ("x=uniform(0.1, 0.5, 0.1)", [0.1, 0.2, 0.3, 0.4, 0.5]),
        ("x=uniform(0, 1)", None),
        ("x=logint(1, 8)", None),
        ("x=int(1, 1000000)", None),
    ],
)
def test_what_a_grid_takes_of_a_range(text, expected):
    assert grid_values(parse_dimension(text).domain) == expected


@given(domains(), st.integers(0, 2**32))
def test_what_is_drawn_lies_in_its_domain(domain, seed):
    drawn = sample([Dimension(key="x", domain=domain)], random.Random(seed))["x"]
    if isinstance(domain, Choice):
        assert any(drawn is value or same(drawn, value) for value in domain.values)
        return
    assert domain.low <= drawn <= domain.high
    if isinstance(domain, Integer):
        assert type(drawn) is int
        assert (drawn - domain.low) % domain.step == 0


def test_a_logarithmic_range_is_drawn_evenly_over_its_decades():
    dimension = parse_dimension("x=loguniform(1e-4, 1)")
    rng = random.Random(0)
    drawn = [math.log10(sample([dimension], rng)["x"]) for _ in range(4000)]
    shares = [sum(low <= x < low + 1 for x in drawn) / 4000 for low in (-4, -3, -2, -1)]
    assert shares == pytest.approx([0.25] * 4, abs=0.03)


@pytest.mark.parametrize("text", ["x=int(1, 3)", "x=logint(1, 3)", "x=choice(1, 2, 3)"])
def test_both_ends_are_drawn(text):
    rng, dimension = random.Random(0), parse_dimension(text)
    assert {sample([dimension], rng)["x"] for _ in range(200)} == {1, 2, 3}


def test_samples_have_what_exists_in_them_and_no_more():
    found, rng = space(*POOLINGS), random.Random(1)
    for _ in range(50):
        point = sample(found, rng)
        assert ("iters" in point) is (point["pooling"] == "isqrt")
        assert {d.key for d in found if exists(d, point)} == set(point)


def test_a_trial_trains_what_the_same_overrides_would():
    point = {"model.head.pooling": "isqrt", "model.head.pooling.num_iters": 3, "optim.lr": 1e-3}
    plan = plan_train("digits_resnet_isqrt", ["epochs=3", *trial_overrides(point)], Request())
    base = {
        "data": "digits",
        "epochs": 3,
        "model": {"backbone": "small_resnet", "head": {"pooling": "gap"}},
        "schedule": {"name": "cosine", "warmup_epochs": 1},
    }
    config = trial_config(base, point)
    assert config == plan.config
    assert config_sha256(config) == plan.config_sha256
    assert trial_cell(point) == "pooling=isqrt,num_iters=3,lr=0.001"


def test_what_follows_from_other_values_follows_from_a_trials():
    config = trial_config({"data": "digits"}, {"images.size": 16})
    assert (config.images.size, config.images.resize) == (16, 16)
    config = trial_config({"optim": {"name": "sgd", "momentum": 0.5}}, {"optim": "adamw"})
    assert config.optim.lr == 1e-3
