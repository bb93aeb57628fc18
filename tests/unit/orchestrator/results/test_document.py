"""Pages as Markdown and HTML: what others wrote stays what they wrote."""

from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from orchestrator.results.document import (
    Bullets,
    Code,
    Figure,
    Heading,
    Paragraph,
    Table,
    code,
    plain,
    to_html,
    to_markdown,
)

HOSTILE = "<script>alert(1)</script> | *a* _b_ `c` [d](http://e) \\ & # 100 %"


class Text(HTMLParser):
    """Collects text and the names of elements."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.tags = "", []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def html_of(*blocks, **figures) -> Text:
    page = to_html(blocks, title="t", figures=figures)
    return Text(page[page.index("<body>") :])


@pytest.mark.parametrize("make", [Paragraph, Heading, lambda text: Bullets((text,))])
def test_what_others_wrote_is_shown_as_it_is(make):
    block = make(plain(HOSTILE))
    page = html_of(block)
    assert page.text.strip() == HOSTILE
    assert not {"script", "a", "em", "strong", "code"} & set(page.tags)
    # A reader of Markdown that knows nothing of us sees the same.
    seen = Text(MarkdownIt().render(to_markdown([block])))
    assert seen.text.strip() == HOSTILE
    assert not {"script", "a", "em", "strong", "code"} & set(seen.tags)


def test_a_table_keeps_its_cells_whatever_is_in_them():
    table = Table(("cell", "x"), ((code("a|b`c"), "1.0"), (plain(HOSTILE), "-")), "what it is")
    seen = Text(MarkdownIt().enable("table").render(to_markdown([table])))
    assert seen.tags.count("td") == 4
    assert "a|b'c" in seen.text
    assert HOSTILE in seen.text
    page = html_of(table)
    assert page.tags.count("td") == 4
    assert HOSTILE in page.text
    assert "Table 1. what it is" in page.text


def test_our_own_marks_are_the_same_in_both():
    block = Paragraph("**bold** and `code` and [a link](report.html)")
    for seen in (html_of(block), Text(MarkdownIt().render(to_markdown([block])))):
        assert seen.text.strip() == "bold and code and a link"
        assert {"strong", "code", "a"} <= set(seen.tags)


def test_columns_of_numbers_are_on_the_right():
    rows = (("a", "96.5 ± 0.2", "[-0.1, +0.2]", "< 0.001", "-", "better"), ("b", "-", "-", "-",
            "-", ""))  # fmt: skip
    table = Table(("cell", "top-1", "interval", "p", "none", "verdict"), rows)
    assert to_markdown([table]).splitlines()[1] == "| --- | --: | --: | --: | --- | --- |"
    assert to_html([table], title="t", figures={}).count('<th class="number">') == 3


def test_tables_and_figures_are_counted_apart_and_alike():
    blocks = [
        Figure("one", "alt", "first"),
        Table(("a",), (("b",),), "second"),
        Figure("two", "alt", "third"),
    ]
    markdown = to_markdown(blocks)
    page = html_of(*blocks, one="<svg ></svg>", two="<svg ></svg>").text
    for label in ("Figure 1.", "Table 1.", "Figure 2."):
        assert label in markdown
        assert label in page
    assert "![alt](figures/two.svg)" in markdown


def test_the_page_needs_nothing_from_elsewhere():
    page = to_html([Heading("a", 1), Code("<x>")], title="<t>", figures={})
    assert "<title>&lt;t&gt;</title>" in page
    assert "&lt;x&gt;" in page
    for outside in ("http://", "https://", "src=", "<script", "<link", "@import", "url("):
        assert outside not in page
