"""Answer one question about weights and images: ``python -m workloads.evaluation VERB REQUEST``.

For `gcpctl predict` and `gcpctl submit eval`; see `workloads.answering`.
"""

import sys

from workloads import answering
from workloads.config.errors import ConfigError
from workloads.data.errors import DataError
from workloads.evaluation.errors import EvaluationError
from workloads.models.errors import ModelError
from workloads.worker.failures import CheckpointError

VERBS = {
    "describe": "workloads.evaluation.describe:describe_weights",
    "predict": "workloads.evaluation.predict:predict_images",
}
"""Verb -> `module:function`, imported when it is asked for."""

MISTAKES = (ModelError, ConfigError, DataError, EvaluationError, CheckpointError)


def main(arguments: list[str]) -> int:
    """Answer one request; return 0 if there is an answer or an error for people, else 2."""
    return answering.answer(arguments, "workloads.evaluation", VERBS, MISTAKES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
