"""The YAML dialect and the overrides: one reading, and plain sentences for everything else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.config.document import apply_overrides, dump_document, load_document
from workloads.config.errors import ConfigError


def test_scalars_follow_yaml_1_2() -> None:
    text = """
    a: 1e-3
    b: .5
    c: 1.5e+3
    d: -7
    e: true
    f: no
    g: on
    h: 017
    i: 0x1F
    j: 1_000
    k: 12:30
    l: 2024-01-01
    m:
    n: ~
    o: null
    p: '1'
    q: "true"
    r: -.inf
    s: True
    t: [1, [2.0, x]]
    u: <<
    """
    assert load_document(text, "f") == {
        **{"a": 0.001, "b": 0.5, "c": 1500.0, "d": -7, "e": True, "f": "no", "g": "on"},
        **{"h": "017", "i": "0x1F", "j": "1_000", "k": "12:30", "l": "2024-01-01"},
        **{"m": None, "n": None, "o": None, "p": "1", "q": "true", "r": -math.inf, "s": "True"},
        **{"t": [1, [2.0, "x"]], "u": "<<"},
    }
    assert isinstance(load_document("a: 1e3", "f")["a"], float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.yaml:\n  is empty"),
        ("# nothing\n", "f.yaml:\n  is empty"),
        ("- 1\n- 2", "holds a list"),
        ("hello", "holds text"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "f.yaml:4:\n  'c' stands here twice"),
        ("a: &x 1", "f.yaml:1:\n  anchors"),
        ("a: 1\nb: *x", "f.yaml:2:\n  anchors"),
        ("a: !!python/object/apply:os.system [ls]", "tag 'tag:yaml.org,2002:python/object"),
        ("a: !!str 1", "is not allowed"),
        ("a: 1\n---\nb: 2", "f.yaml:2:\n  a second document"),
        ("a:\n\tb: 1", "f.yaml:2:\n  a tab stands where spaces belong"),
        ("a: [1", "f.yaml:1:\n  is not YAML"),
        ("a: 1\n b: 2", "f.yaml:2:\n  is not YAML"),
        ("\x89PNG\r\n\x00\x01", "f.yaml:2:\n  is not a text file"),
        ("a: \ufffd", "is not a text file"),
        ("1: 2", "a key must be text, got the number 1"),
        ("true: 2", "a key must be text, got true"),
        ("a: " + "[" * 40 + "]" * 40, "nested deeper than 32 levels"),
        ("[" * 100_000, "nested deeper than 32 levels"),
        ("a: " + "9" * 5000, "more than 400 digits"),
        ("a: " + "x" * 2_000_000, "larger than 1 MiB"),
    ],
)
def test_refusals_say_where_and_what(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_document(text, "f.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("f.yaml:")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
LEAVES = SCALARS | st.text("ab1e-.:0 \n#")
VALUES = st.recursive(
    LEAVES, lambda v: st.lists(v) | st.dictionaries(st.text("abn1"), v), max_leaves=8
)


@given(st.dictionaries(st.text("abc1", min_size=1), VALUES, min_size=1))
def test_what_is_dumped_is_loaded(document: dict[str, object]) -> None:
    assert load_document(dump_document(document), "f") == document


def test_dump_quotes_what_would_be_read_as_something_else() -> None:
    document = {"a": ["1e-3", "true", "no", "null", "1", ""], "b": 1e-05}
    assert load_document(dump_document(document), "f") == document


def test_overrides_return_a_new_document() -> None:
    document = {"a": {"b": 1, "c": 2}, "d": [1]}
    result = apply_overrides(document, ["a.b=1e-2", "a.x.y=null", "d=[1, 2]", "e=a=b", "f= 'x' "])
    assert result == {
        **{"a": {"b": 0.01, "c": 2, "x": {"y": None}}, "d": [1, 2], "e": "a=b", "f": "x"},
    }
    assert document == {"a": {"b": 1, "c": 2}, "d": [1]}


def test_the_later_of_two_equal_keys_wins() -> None:
    assert apply_overrides({}, ["a=1", "a=2"]) == {"a": 2}


@pytest.mark.parametrize(
    ("overrides", "pooling"),
    [
        (["p.name=gap"], {"name": "gap"}),
        (["p=gap"], {"name": "gap"}),
        (["p.name=isqrt"], {"name": "isqrt", "num_iters": 3}),
        (["p=isqrt"], {"name": "isqrt", "num_iters": 3}),
        (["p.x=1", "p.name=cov"], {"name": "cov", "x": 1}),
        (["p.name=cov", "p.x=1"], {"name": "cov", "x": 1}),
        (["p.x=1", "p=cov"], {"name": "cov", "x": 1}),
        (["p.num_iters=5"], {"name": "isqrt", "num_iters": 5}),
        (["p={name: cov, y: 2}"], {"name": "cov", "y": 2}),
    ],
)
def test_another_choice_drops_the_keys_of_the_old_one(
    overrides: list[str], pooling: object
) -> None:
    document = {"p": {"name": "isqrt", "num_iters": 3}}
    assert apply_overrides(document, overrides) == {"p": pooling}


def test_a_bare_name_grows_when_something_is_set_below_it() -> None:
    assert apply_overrides({"data": "digits"}, ["data.augment=false"]) == {
        "data": {"name": "digits", "augment": False}
    }
    assert apply_overrides({}, ["data.path=/x", "data=image_folder"]) == {
        "data": {"name": "image_folder", "path": "/x"}
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "seed: has no '='"),
        ("=1", "has an empty key"),
        ("a..b=1", "has an empty key"),
        (".a=1", "has an empty key"),
        ("a=", "has no value (write null for none"),
        ("a=[1", "is not YAML"),
        ("a=*x", "anchors (&) and aliases (*)"),
        ("seed.x=1", "seed.x: seed is the number 1, it has no keys"),
        ("list.0=1", "list is a list (give it whole, as in list=[1, 2])"),
    ],
)
def test_bad_overrides(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"seed": 1, "list": [1]}, [override])
    assert message in str(caught.value)


def test_every_bad_override_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({}, ["a", "b", "c=1"])
    assert len(caught.value.problems) == 2
