"""One question, one answer as JSON, for programs that may not import torch themselves.

A module that answers is run as ``python -m MODULE VERB REQUEST``. REQUEST is a JSON object, or `-`
where it comes through stdin; stdout gets one JSON object, ``{"answer": ...}`` or, for mistakes that
a person can mend, ``{"error": {"message", "hint", "exit_code"}}``. Anything else is a defect: a
traceback on stderr and exit code 1. What libraries print goes to stderr, so that nothing spoils the
answer.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

Verb = Callable[[dict[str, Any]], dict[str, Any]]
Mistakes = tuple[type[Exception], ...]

_WRONG_USAGE = 2


def answer(arguments: list[str], program: str, verbs: Mapping[str, str], mistakes: Mistakes) -> int:
    """Answer one request; return 0 if there is an answer or an error for people, else 2.

    Args:
        arguments: Verb and request.
        program: The module's name, for the usage.
        verbs: Verb -> `module:function` of a `Verb`, imported when it is asked for.
        mistakes: Exceptions that a person can mend.
    """
    if len(arguments) != 2 or arguments[0] not in verbs:
        sys.stderr.write(f"usage: python -m {program} {'|'.join(verbs)} REQUEST\n")
        return 2
    request = sys.stdin.read() if arguments[1] == "-" else arguments[1]
    with os.fdopen(_take_stdout(), "w", encoding="utf-8") as answer_pipe:
        json.dump(respond(verbs[arguments[0]], request, mistakes), answer_pipe)
    return 0


def respond(function: str, request: str, mistakes: Mistakes) -> dict[str, Any]:
    """Return `answer` or `error` to a request for `module:function`."""
    module, _, name = function.partition(":")
    verb: Verb = getattr(importlib.import_module(module), name)
    try:
        return {"answer": verb(json.loads(request))}
    except mistakes as error:
        return {
            "error": {
                "message": getattr(error, "message", str(error)),
                "hint": getattr(error, "hint", ""),
                "exit_code": getattr(error, "exit_code", _WRONG_USAGE),
            }
        }


def _take_stdout() -> int:
    """Point everybody's stdout at stderr; return the real one."""
    real = os.dup(1)
    os.dup2(2, 1)
    return real
