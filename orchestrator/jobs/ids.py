"""Names of jobs: readable, DNS-safe, unique."""

import re
import secrets

# No vowels and no look-alikes: no accidental words, nothing misread aloud.
_ALPHABET = "bcdfghjkmnpqrstvwxz23456789"
_SUFFIX_LENGTH = 4
MAX_LENGTH = 52
"""Leaves room for `-a<attempt>` in the 63 characters of a DNS label."""
_VALID = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def new_job_id(kind: str, recipe: str) -> str:
    """Return a fresh id such as `train-digits-resnet-isqrt-k7x2`."""
    stem = _words(f"{kind}-{recipe}")[: MAX_LENGTH - _SUFFIX_LENGTH - 1].rstrip("-")
    return f"{stem}-{_suffix()}"


def new_member_id(study: str, cell: str, seed: int, *, kind: str) -> str:
    """Return a fresh id for a job of a study, such as `pooling-isqrt-s0-k7x2`.

    Args:
        cell: The cell's name, `pooling=isqrt`; what the study's name ends with is not repeated.
        kind: `train`, or another kind, which is then put in front.
    """
    stem, words = _words(study), _words(cell)
    for factor in re.findall(r"([^=,]+)=", cell):
        repeated = _words(factor)
        if stem.endswith(repeated) and words.startswith(f"{repeated}-"):
            words = words.removeprefix(f"{repeated}-")
    front = stem if kind == "train" else f"{kind}-{stem}"
    end = f"-s{seed}-" + _suffix()
    room = MAX_LENGTH - len(end)
    front = front[: max(room - len(words) - 1, room // 2)].rstrip("-")
    return f"{front}-{words}"[:room].rstrip("-") + end


def _words(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _suffix() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_SUFFIX_LENGTH))


def name_problem(name: str) -> str:
    """Return what keeps `name` from being a job id, or an empty string."""
    if not _VALID.fullmatch(name):
        return "use lower-case letters, digits and inner hyphens only"
    if len(name) > MAX_LENGTH:
        return f"it has {len(name)} characters, {MAX_LENGTH} are allowed"
    return ""


def submission_id(job_id: str, attempt: int) -> str:
    """Return the id that Ray knows the attempt by; Ray refuses it a second time."""
    return f"{job_id}-a{attempt}"
