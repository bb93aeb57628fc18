"""Answer one question about networks: ``python -m workloads.models VERB REQUEST``.

For `gcpctl` above all; see `workloads.answering`.
"""

import sys
from typing import Any

from workloads import answering
from workloads.config.errors import ConfigError
from workloads.models.errors import ModelError

VERBS = {
    "count": "workloads.models.answers:count_networks",
    "describe": "workloads.models.answers:describe_network",
    "convert": "workloads.models.weights.answers:convert_file",
    "export": "workloads.models.weights.answers:export_file",
}
"""Verb -> `module:function`, imported when it is asked for."""

_MISTAKES = (ModelError, ConfigError)


def main(arguments: list[str]) -> int:
    """Answer one request; return 0 if there is an answer or an error for people, else 2."""
    return answering.answer(arguments, "workloads.models", VERBS, _MISTAKES)


def respond(verb: str, request: str) -> dict[str, Any]:
    """Return `answer` or `error` to a request."""
    return answering.respond(VERBS[verb], request, _MISTAKES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
