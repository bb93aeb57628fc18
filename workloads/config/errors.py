"""What is wrong with a config, said so that a person can mend it."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One mistake: where it stands, what is wrong, what would be right."""

    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        return f"{text} ({self.hint})" if self.hint else text


class ConfigError(ValueError):
    """A config that cannot be used, with every problem found in it.

    Attributes:
        source: The file or command line that the config came from.
        problems: All mistakes, in the order of the document.
    """

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{source}:\n{lines}")


def did_you_mean(word: str, possible: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the closest name, or an empty string."""
    close = difflib.get_close_matches(word, list(possible), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""
