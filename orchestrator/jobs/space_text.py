"""Dimensions of a search as text, to and fro; `orchestrator.jobs.space` shows the forms."""

import itertools
import math
import re
from collections.abc import Sequence

from workloads.config.document import load_document
from workloads.config.errors import ConfigError, Problem, did_you_mean
from workloads.config.sweep import Choice, Dimension, Domain, Integer, Uniform, Value

FORMS = {
    "uniform": "uniform(low, high) or uniform(low, high, step)",
    "loguniform": "loguniform(low, high)",
    "int": "int(low, high) or int(low, high, step)",
    "logint": "logint(low, high)",
    "choice": "choice(value, value, ...)",
}
"""Name of a kind of dimension -> how it is written."""

SOURCE = "--space"
"""How messages name what is searched."""
_KEY = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_CALL = re.compile(r"\s*([A-Za-z_]\w*)\s*\(", re.ASCII)
_IF = re.compile(r"\s+if\s+")
_IN = re.compile(r"\s+in\s*\(")
_EQUALS = re.compile(r"\s*=\s*")
_AND = re.compile(r"\s+and\s+")
_WORD = re.compile(r"[^\s,()]+")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./+-]*")
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"\\]|\\.)*\"""")
_CONSTANTS = ("true", "false", "null")


def parse_dimension(text: str) -> Dimension:
    """Read `KEY=KIND(...)` or `KEY=KIND(...) if KEY=VALUE and KEY in (VALUE, VALUE)`.

    Raises:
        ConfigError: It cannot be read; says what would be right.
    """
    key, equals, rest = text.partition("=")
    key, call = key.strip(), _CALL.match(rest)
    if not equals or not _KEY.fullmatch(key):
        raise refused(text, "begins with no key", "such as optim.lr=loguniform(1e-3, 1)")
    if call is None:
        raise refused(text, "says no kind of values", f"one of {', '.join(FORMS)}")
    arguments, end = _until_bracket(text, rest, call.end())
    return Dimension(
        key=without_name(key),
        domain=_domain(text, call[1], _values(text, arguments)),
        when=_conditions(text, rest[end:]),
    )


def format_dimension(dimension: Dimension) -> str:
    """Write a dimension so that `parse_dimension` reads it back equal."""
    conditions = " and ".join(
        f"{key}={format_word(values[0])}" if len(values) == 1 else f"{key} in ({_words(values)})"
        for key, values in dimension.when.items()
    )
    text = f"{dimension.key}={format_domain(dimension.domain)}"
    return f"{text} if {conditions}" if conditions else text


def format_domain(domain: Domain) -> str:
    """Write what a dimension draws from: `loguniform(0.001, 1.0)`."""
    if isinstance(domain, Choice):
        return f"choice({_words(domain.values)})"
    name = "uniform" if isinstance(domain, Uniform) else "int"
    ends: list[Value] = [domain.low, domain.high]
    if domain.step not in (None, 1) or (isinstance(domain, Uniform) and domain.step is not None):
        ends.append(domain.step)
    return f"{'log' * domain.log}{name}({_words(ends)})"


def format_value(value: Value) -> str:
    """Return a value for people: numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else format_word(value)


def same(one: Value, other: Value) -> bool:
    """Whether two values are one; true is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def format_word(value: Value) -> str:
    """Write a value so that a recipe's reader gives it back."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if _PLAIN.fullmatch(value) and value not in _CONSTANTS:
        return value
    return '"' + "".join(map(_escaped, value)) + '"'


def without_name(key: str) -> str:
    """Return `model.head.pooling` for `model.head.pooling.name`, which means the same."""
    return key.removesuffix(".name")


def refused(text: str, message: str, hint: str = "") -> ConfigError:
    """Return the error about a part of the space."""
    return ConfigError(SOURCE, [Problem(text.strip(), message, hint)])


def _words(values: Sequence[Value]) -> str:
    return ", ".join(map(format_word, values))


def _escaped(sign: str) -> str:
    if sign.isprintable() and sign not in '"\\\ufffd':
        return sign
    return f"\\U{ord(sign):08x}"


def _until_bracket(text: str, rest: str, start: int) -> tuple[str, int]:
    """Return what stands before the closing bracket, and where the text goes on after it."""
    at = start
    while at < len(rest) and rest[at] != ")":
        begins = rest[start:at].rstrip()[-1:] in ("", ",")
        quoted = _QUOTED.match(rest, at) if begins else None
        at = quoted.end() if quoted else at + 1
    if at >= len(rest):
        raise refused(text, "has no closing bracket")
    return rest[start:at], at + 1


def _values(text: str, arguments: str) -> list[Value]:
    """Read values between commas, as a recipe's list has them."""
    if not arguments.strip():
        return []
    try:
        found = load_document(f"v: [{arguments}]", SOURCE)["v"]
    except ConfigError as error:
        raise refused(text, error.problems[0].message, error.problems[0].hint) from None
    if not isinstance(found, list) or any(isinstance(value, dict | list) for value in found):
        raise refused(text, "wants values between commas", "text with signs stands in quotes")
    return found


def _domain(text: str, kind: str, values: list[Value]) -> Domain:
    if kind not in FORMS:
        hint = did_you_mean(kind, FORMS) or f"one of {', '.join(FORMS)}"
        raise refused(text, f"there is no kind {kind!r}", hint)
    form = f"write {FORMS[kind]}"
    if kind == "choice":
        if not values:
            raise refused(text, "has no values", form)
        if any(isinstance(value, float) and not math.isfinite(value) for value in values):
            raise refused(text, "wants finite numbers")
        for one, other in itertools.combinations(values, 2):
            if same(one, other):
                raise refused(text, f"has {format_word(one)} twice")
        return Choice(values=tuple(values))
    most = 2 if kind.startswith("log") else 3
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) != len(values) or not 2 <= len(values) <= most:
        raise refused(text, "wants numbers", form)
    if not all(map(math.isfinite, numbers)):
        raise refused(text, "wants finite numbers")
    low, high, *step = numbers
    if low > high:
        raise refused(text, f"{low:g} is above {high:g}", f"the lower first: {high:g}, {low:g}")
    whole = kind.endswith("int")
    if whole and not all(isinstance(number, int) for number in numbers):
        raise refused(text, "wants whole numbers", "for any number: uniform or loguniform")
    arguments = {"low": low, "high": high, "log": kind.startswith("log")}
    if step:
        arguments["step"] = step[0]
    try:
        return (Integer if whole else Uniform).model_validate(arguments)
    except ValueError as error:  # pydantic's, with our own words last
        raise refused(text, _own_words(error), form) from None


def _own_words(error: ValueError) -> str:
    details = error.errors() if hasattr(error, "errors") else []
    found = [str(d.get("ctx", {}).get("error", d["msg"])) for d in details]
    return "; ".join(found) or str(error)


def _conditions(text: str, rest: str) -> dict[str, tuple[Value, ...]]:
    """Read what stands after the closing bracket."""
    if not rest.strip():
        return {}
    words = _IF.match(rest)
    if words is None:
        raise refused(text, f"goes on with {rest.strip()!r}", "a condition: ... if KEY=VALUE")
    found: dict[str, tuple[Value, ...]] = {}
    at = words.end()
    while True:
        key = _KEY.match(rest, at)
        if key is None:
            raise refused(text, "has a condition without a key", "write if KEY=VALUE")
        name, at = without_name(key[0]), key.end()
        if name in found:
            raise refused(text, f"has two conditions on {name}", f"write {name} in (A, B)")
        if inside := _IN.match(rest, at):
            arguments, at = _until_bracket(text, rest, inside.end())
        elif equals := _EQUALS.match(rest, at):
            word = _QUOTED.match(rest, equals.end()) or _WORD.match(rest, equals.end())
            if word is None:
                raise refused(text, f"has a condition on {name} without a value")
            arguments, at = word[0], word.end()
        else:
            raise refused(text, f"has a condition on {name} without a value", "write if KEY=VALUE")
        values = _values(text, arguments)
        if not values:
            raise refused(text, f"has a condition on {name} without a value")
        found[name] = tuple(values)
        if not rest[at:].strip():
            return found
        further = _AND.match(rest, at)
        if further is None:
            raise refused(text, f"goes on with {rest[at:].strip()!r}", "join conditions with and")
        at = further.end()
