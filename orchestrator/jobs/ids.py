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
    stem = re.sub(r"[^a-z0-9]+", "-", f"{kind}-{recipe}".lower()).strip("-")
    stem = stem[: MAX_LENGTH - _SUFFIX_LENGTH - 1].rstrip("-")
    return stem + "-" + "".join(secrets.choice(_ALPHABET) for _ in range(_SUFFIX_LENGTH))


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
