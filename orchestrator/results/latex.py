"""A comparison as a table of LaTeX."""

import re

from orchestrator.results.comparison import Comparison
from orchestrator.results.numbers import NOTHING
from orchestrator.results.tables import missing, notes, one_table

_NOT_IN_PAPERS = ("verdict", "time", "memory MB")
"""Columns of the terminal; a paper has the interval and p, and other machines."""


def to_latex(comparison: Comparison) -> str:
    r"""Return a `table` of LaTeX, in the style of the package booktabs.

    One that is wider than its page or column is made smaller, by the package adjustbox. Means and
    deviations are in mathematics, so `\pm` and minus signs are set as such.
    """
    header, rows = one_table(comparison)
    # The second column is what is compared, whatever that is.
    kept = [i for i, title in enumerate(header) if i == 1 or title not in _NOT_IN_PAPERS]
    header, rows = [header[i] for i in kept], [[row[i] for i in kept] for row in rows]
    lines = [
        r"% \usepackage{adjustbox,booktabs}",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{_tex(_sentences(comparison))}}}",
        r"  \begin{adjustbox}{max width=\linewidth}",
        f"  \\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"    \toprule",
        f"    {' & '.join(map(_tex, header))} \\\\",
        r"    \midrule",
        *(f"    {' & '.join([_tex(row[0]), *map(_tex_number, row[1:])])} \\\\" for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"  \end{adjustbox}",
        r"\end{table}",
        *(_comment(f"note: {text}") for text in comparison.warnings),
        *(
            _comment(f"not counted: {job} of {name}, {why}")
            for name, job, why in missing(comparison)
        ),
    ]
    return "\n".join(lines) + "\n"


def _sentences(comparison: Comparison) -> str:
    parts = [comparison.title.strip(), *notes(comparison)]
    return " ".join(part if part.endswith((".", "?", "!")) else f"{part}." for part in parts)


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "[": "{[}",  # behind a line's end it would begin an option
    "<": r"$<$",
    ">": r"$>$",
    "…": r"\ldots{}",
    "*": r"$^*$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "×": r"$\times$",
}


def _comment(text: str) -> str:
    return f"% {' '.join(text.split())}"


def _tex(text: str) -> str:
    """Return text as LaTeX sets it."""
    return "".join(_TEX.get(letter, letter) for letter in " ".join(text.split()))


def _tex_number(text: str) -> str:
    """Return a number, a mean with its deviation or an interval in mathematics; words as text."""
    if not any(letter.isdigit() for letter in text):
        return "--" if text == NOTHING else _tex(text)
    words = text.replace("%", r"\%").replace("±", r"\pm").replace(",", "{,}")
    if text.startswith("["):
        words = words.replace("{,} ", ", ")
    if not any(c.isalpha() for c in text):
        return f"${words}$"
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", _tex(text))
