"""YAML documents and command-line overrides, read strictly: what stands there is what is meant.

The dialect is the core of YAML 1.2: ``1e-3`` is a number, ``no`` and ``on`` are text, ``017`` and
``12:30`` are text too. Anchors, aliases, tags, repeated keys and several documents in one file
are refused, so that a recipe is data, has one reading and cannot unpack to gigabytes.
"""

import copy
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import yaml

from workloads.config.errors import ConfigError, Problem

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")
_CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "~": None}


class _Loader(yaml.composer.Composer, yaml.resolver.Resolver):
    """Makes nodes of events; plain scalars all stay text, and `_scalar` gives them their type."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - shadows PyYAML's table

    def __init__(self, events: Iterable[yaml.Event]) -> None:
        yaml.composer.Composer.__init__(self)
        yaml.resolver.Resolver.__init__(self)
        self._events = deque(events)

    def check_event(self, *kinds: type[yaml.Event]) -> bool:
        """Whether the next event is of one of the kinds."""
        return bool(self._events) and (not kinds or isinstance(self._events[0], kinds))

    def peek_event(self) -> yaml.Event:
        """Return the next event and leave it."""
        return self._events[0]

    def get_event(self) -> yaml.Event:
        """Return the next event."""
        return self._events.popleft()


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes all text which `load_document` would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = text not in _CONSTANTS and not _INT.fullmatch(text) and not _FLOAT.fullmatch(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")


_Dumper.add_representer(str, _represent_text)


class _Refused(Exception):
    """A construct that the dialect leaves out; carries where it stands."""

    def __init__(self, message: str, mark: Any, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint
        self.mark: yaml.Mark | None = mark


def load_document(text: str, source: str) -> dict[str, Any]:
    """Read one YAML mapping.

    Args:
        text: The whole document.
        source: What to call it in messages: a file name, "command line".

    Returns:
        The mapping, of plain dicts, lists, strings, numbers, booleans and None.

    Raises:
        ConfigError: With file, line and a plain sentence, if it cannot be read or is no mapping.
    """
    try:
        if len(text.encode("utf-8", "replace")) > MAX_BYTES:
            raise _Refused("is larger than 1 MiB; that is no recipe", None)
        value = _read(text)
        if value is None:
            raise _Refused("is empty", None, "expected `key: value` lines")
        if not isinstance(value, dict):
            raise _Refused(f"holds {_kind(value)}, not `key: value` lines", None)
    except _Refused as error:
        where = source if error.mark is None else f"{source}:{error.mark.line + 1}"
        raise ConfigError(where, [Problem("", error.message, error.hint)]) from None
    return value


def dump_document(document: dict[str, Any]) -> str:
    """Write a mapping as YAML that `load_document` reads back equal; keys keep their order."""
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return str(text)


def apply_overrides(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of `document` with each ``a.b=value`` put in its place.

    Values follow the rules of `load_document`. Shorter keys are applied before longer ones, so
    ``data.path=/x data=image_folder`` means the same in either order; of two equal keys the later
    wins. Choosing another ``name`` (``optim.name=adamw``, or ``optim=adamw``) drops the keys that
    belonged to the old choice.

    Raises:
        ConfigError: If an override has no ``=``, an empty or impossible key, or no readable value.
    """
    problems: list[Problem] = []
    parsed: list[tuple[list[str], Any]] = []
    for override in overrides:
        try:
            parsed.append(_parse_override(override))
        except _Refused as error:
            problems.append(Problem(override, error.message, error.hint))
    result = copy.deepcopy(document)
    for keys, value in sorted(parsed, key=_precedence):
        try:
            inside = any(len(k) > len(keys) and k[: len(keys)] == keys for k, _ in parsed)
            _put(result, keys, value, inside)
        except _Refused as error:
            problems.append(Problem(".".join(keys), error.message, error.hint))
    if problems:
        raise ConfigError("command line", problems)
    return result


def _precedence(override: tuple[list[str], Any]) -> int:
    keys, _ = override
    return len(keys) - 1 if keys[-1] == "name" and len(keys) > 1 else len(keys)


def _parse_override(override: str) -> tuple[list[str], Any]:
    key, equals, text = override.partition("=")
    if not equals:
        raise _Refused("has no '='", None, "write key=value, as in optim.lr=0.05")
    keys = [part.strip() for part in key.split(".")]
    if not all(keys):
        raise _Refused("has an empty key", None, "write key=value, as in optim.lr=0.05")
    if not text.strip():
        raise _Refused("has no value", None, "write null for none, '' for empty text")
    return keys, _read(text)


def _put(document: dict[str, Any], keys: list[str], value: Any, inside: bool) -> None:
    """Set one key in place. `inside`: another override reaches below this one."""
    parent = document
    for depth, key in enumerate(keys[:-1], start=1):
        below = parent.get(key)
        if below is None:
            below = parent[key] = {}
        elif isinstance(below, str):  # `data: digits` is short for `data: {name: digits}`
            below = parent[key] = {"name": below}
        elif isinstance(below, list):
            whole = ".".join(keys[:depth])
            raise _Refused(f"{whole} is a list", None, f"give it whole, as in {whole}=[1, 2]")
        elif not isinstance(below, dict):
            raise _Refused(f"{'.'.join(keys[:depth])} is {_kind(below)}, it has no keys", None)
        parent = below
    leaf = keys[-1]
    old = parent.get(leaf)
    if leaf == "name" and len(keys) > 1 and old is not None and old != value:
        parent.clear()
    elif isinstance(value, str) and (inside or (isinstance(old, dict) and "name" in old)):
        kept = isinstance(old, dict) and old.get("name") == value
        value = {**old, "name": value} if kept and isinstance(old, dict) else {"name": value}
    parent[leaf] = value


def _read(text: str) -> Any:
    """Turn YAML text into plain values, or raise `_Refused`."""
    if control := _CONTROL.search(text):
        line = text.count("\n", 0, control.start())
        raise _Refused("is not a text file", _mark(line), "expected YAML in UTF-8")
    try:
        # Looked through, which costs no recursion, before anything is built.
        node = _Loader(list(_allowed_events(text))).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _Refused(*_plain_sentence(error, text, mark)) from None
    except yaml.YAMLError as error:
        raise _Refused(f"is not YAML: {error}", None) from None
    return None if node is None else _value(node)


def _allowed_events(text: str) -> Iterator[yaml.Event]:
    """Yield what stands in a text, and raise `_Refused` at what the dialect leaves out."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Refused("anchors (&) and aliases (*) are not allowed", event.start_mark)
        if tag := getattr(event, "tag", None):
            raise _Refused(f"the tag {tag!r} is not allowed", event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _Refused("a second document starts here", event.start_mark, "keep one")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _Refused(f"is nested deeper than {MAX_DEPTH} levels", event.start_mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        yield event


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = _value(key_node)
            if not isinstance(key, str):
                raise _Refused(f"a key must be text, got {_kind(key)}", key_node.start_mark)
            if key in mapping:
                raise _Refused(f"{key!r} stands here twice", key_node.start_mark, "keep one")
            mapping[key] = _value(value_node)
        return mapping
    plain = getattr(node, "style", None) is None
    return _scalar(node.value, node) if plain else node.value


def _scalar(word: str, node: yaml.Node) -> str | int | float | bool | None:
    if not word:
        return None
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    if _INT.fullmatch(word):
        if len(word) > 400:
            raise _Refused("a number has more than 400 digits", node.start_mark)
        return int(word)
    if _FLOAT.fullmatch(word):
        return float(word.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return str(word)


def _plain_sentence(
    error: yaml.MarkedYAMLError, text: str, mark: yaml.Mark | None
) -> tuple[str, yaml.Mark | None, str]:
    lines = text.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in str(error.problem):
        return "a tab stands where spaces belong", mark, "YAML indents with spaces"
    return f"is not YAML: {error.problem or error.context}", mark, ""


def _mark(line: int) -> yaml.Mark:
    return yaml.Mark("", 0, line, 0, None, 0)


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "text" if isinstance(value, str) else f"the number {value}"
