"""A page as blocks, written as Markdown and as one HTML file that needs nothing else.

Text in blocks knows `code`, **bold** and [links](url); `plain` keeps what others wrote from
being read as any of these.
"""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.results.page_style import STYLE

Tone = Literal["", "warning", "failure"]

_MARKS = re.compile(r"([\\`*_\[\]<>|#~])")
_INLINE = re.compile(
    r"\\(?P<plain>[\\`*_\[\]<>|#~])"
    r"|`(?P<code>[^`]+)`"
    r"|\*\*(?P<bold>.+?)\*\*(?!\*)"
    r"|\[(?P<label>(?:\\.|[^\]\\])+)\]\((?P<url>[^)\s]+)\)"
)
_NUMBER = re.compile(r"^(?:[-+<\[ ]*[\d,.]+.*|-|)$")


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Some sentences; with a tone they stand out."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows under a header; columns of numbers are aligned to the right.

    Attributes:
        caption: What it shows; it is numbered.
        marked: Index of the row that the others are compared with; None marks none.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    marked: int | None = None


@dataclass(frozen=True)
class Figure:
    """A drawing by its name, which is that of its files; its caption is numbered."""

    name: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Code:
    """Lines to copy."""

    text: str


Block = Heading | Paragraph | Bullets | Table | Figure | Code


def plain(text: str) -> str:
    """Return text that others wrote so that it is shown as it is, on one line."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """Return a name as code."""
    return f"`{' '.join(text.replace('`', chr(39)).split())}`" if text.strip() else ""


# --- Markdown ------------------------------------------------------------------------------------


def to_markdown(blocks: Sequence[Block], *, figures: str = "figures") -> str:
    """Return the page as Markdown.

    Args:
        figures: Folder of the drawings, as seen from the file.
    """
    numbers = _Numbers()
    return "\n\n".join(_markdown(block, numbers, figures) for block in blocks) + "\n"


def _markdown(block: Block, numbers: "_Numbers", figures: str) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Paragraph(text, tone):
            return f"> **{_TONES[tone]}** {text}" if tone else text
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Table():
            lines = [_row(block.header), _row([_rule(block, i) for i in range(len(block.header))])]
            lines += [_row([_in_table(cell) for cell in row]) for row in block.rows]
            caption = f"**{numbers.next('Table')}** {block.caption}\n\n" if block.caption else ""
            return caption + "\n".join(lines)
        case Figure(name, alt, caption):
            picture = f"![{alt}]({figures}/{name}.svg)"
            return f"{picture}\n\n**{numbers.next('Figure')}** {caption}"
        case Code(text):
            return f"```\n{text}\n```"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _in_table(cell: str) -> str:
    """Return a cell whose bars do not end it, in code either."""
    return re.sub(r"(?<!\\)\|", r"\\|", cell)


def _rule(table: Table, index: int) -> str:
    return "--:" if _is_number(table, index) else "---"


def _is_number(table: Table, index: int) -> bool:
    cells = [row[index].strip("*") for row in table.rows]
    return any(cell.strip("-") for cell in cells) and all(_NUMBER.match(cell) for cell in cells)


_TONES: dict[Tone, str] = {"": "", "warning": "Note.", "failure": "Incomplete."}


class _Numbers:
    """Counts tables and figures."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}

    def next(self, kind: str) -> str:
        """Return the label of the next one."""
        self._count[kind] = self._count.get(kind, 0) + 1
        return f"{kind} {self._count[kind]}."


# --- HTML ----------------------------------------------------------------------------------------


def to_html(blocks: Sequence[Block], *, title: str, figures: Mapping[str, str]) -> str:
    """Return the page as one HTML file: no scripts, nothing from elsewhere.

    Args:
        title: Of the window.
        figures: By `Figure.name`, drawings as SVG elements.
    """
    numbers = _Numbers()
    body = "\n".join(_html(block, numbers, figures) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _html(block: Block, numbers: _Numbers, figures: Mapping[str, str]) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_inline(text)}</h{level}>"
        case Paragraph(text, tone):
            if not tone:
                return f"<p>{_inline(text)}</p>"
            return f'<p class="{tone}"><strong>{_TONES[tone]}</strong> {_inline(text)}</p>'
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
        case Table():
            return _html_table(block, numbers)
        case Figure(name, alt, caption):
            label = f"<strong>{numbers.next('Figure')}</strong> {_inline(caption)}"
            picture = figures[name].replace(
                "<svg ", f'<svg role="img" aria-label="{html.escape(_unmarked(alt))}" ', 1
            )
            return f"<figure>\n{picture}\n<figcaption>{label}</figcaption>\n</figure>"
        case Code(text):
            return f"<pre><code>{html.escape(text)}</code></pre>"


def _html_table(table: Table, numbers: _Numbers) -> str:
    right = [' class="number"' * _is_number(table, i) for i in range(len(table.header))]
    head = "".join(
        f"<th{kind}>{_inline(cell)}</th>" for cell, kind in zip(table.header, right, strict=True)
    )
    rows = []
    for index, row in enumerate(table.rows):
        cells = "".join(
            f"<td{kind}>{_inline(cell)}</td>" for cell, kind in zip(row, right, strict=True)
        )
        rows.append(
            f'<tr class="baseline">{cells}</tr>' if index == table.marked else f"<tr>{cells}</tr>"
        )
    caption = (
        f"<caption><strong>{numbers.next('Table')}</strong> {_inline(table.caption)}</caption>\n"
        if table.caption
        else ""
    )
    body = "\n".join(rows)
    return (
        f'<div class="table"><table>\n{caption}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _inline(text: str) -> str:
    """Return text with its marks as HTML; everything else is escaped."""
    parts, end = [], 0
    for found in _INLINE.finditer(text):
        parts.append(html.escape(text[end : found.start()]))
        parts.append(_marked(found))
        end = found.end()
    return "".join([*parts, html.escape(text[end:])])


def _marked(found: re.Match[str]) -> str:
    if found["plain"]:
        return html.escape(found["plain"])
    if found["code"]:
        return f"<code>{html.escape(found['code'])}</code>"
    if found["bold"]:
        return f"<strong>{_inline(found['bold'])}</strong>"
    return f'<a href="{html.escape(found["url"])}">{_inline(found["label"])}</a>'


def _unmarked(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
