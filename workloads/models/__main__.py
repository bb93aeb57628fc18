"""Answer one question about networks, as JSON: ``python -m workloads.models VERB REQUEST``.

For programs that may not import torch themselves, `gcpctl` above all. REQUEST is a JSON object;
stdout gets one JSON object, ``{"answer": ...}`` or, for mistakes that a person can mend,
``{"error": {"message", "hint", "exit_code"}}``. Anything else is a defect: a traceback on stderr
and exit code 1. What libraries print goes to stderr, so that nothing spoils the answer.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from workloads.config.errors import ConfigError
from workloads.models.errors import ModelError

Verb = Callable[[dict[str, Any]], dict[str, Any]]

VERBS = {
    "count": "workloads.models.answers:count_networks",
    "describe": "workloads.models.answers:describe_network",
    "convert": "workloads.models.weights.answers:convert_file",
    "export": "workloads.models.weights.answers:export_file",
}
"""Verb -> `module:function` of a `Verb`, imported when it is asked for."""


def main(arguments: list[str]) -> int:
    """Answer one request; return 0 if there is an answer or an error for people, else 2."""
    if len(arguments) != 2 or arguments[0] not in VERBS:
        sys.stderr.write(f"usage: python -m workloads.models {'|'.join(VERBS)} REQUEST\n")
        return 2
    with os.fdopen(_take_stdout(), "w", encoding="utf-8") as answer_pipe:
        json.dump(respond(*arguments), answer_pipe)
    return 0


def respond(verb: str, request: str) -> dict[str, Any]:
    """Return `answer` or `error` to a request."""
    try:
        return {"answer": _load(verb)(json.loads(request))}
    except ModelError as error:
        mistake = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code}
    except ConfigError as error:
        mistake = {"message": str(error), "hint": "", "exit_code": 2}
    return {"error": mistake}


def _load(verb: str) -> Verb:
    module, _, function = VERBS[verb].partition(":")
    found: Verb = getattr(importlib.import_module(module), function)
    return found


def _take_stdout() -> int:
    """Point everybody's stdout at stderr; return the real one."""
    real = os.dup(1)
    os.dup2(2, 1)
    return real


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
