"""How a report's HTML page looks: light or dark as the reader has it, and light on paper."""

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1c2024",
    "soft": "#60646c",
    "rule": "#d4d7dc",
    "wash": "#f5f6f8",
    "link": "#0b5cad",
    "warning": "#8a5a00",
    "warning-wash": "#fff6e0",
    "failure": "#a61b1b",
    "failure-wash": "#fdecec",
    "base": "#5b6068",
    "c1": "#0072b2",
    "c2": "#d55e00",
    "c3": "#009e73",
    "c4": "#b5568f",
    "c5": "#c98a00",
    "c6": "#3a9bd1",
}
"""Colours by what they are for. Those of cells, c1 to c6, are told apart by people of any colour
vision (after Okabe and Ito, darkened where they were too light for lines on white)."""

_DARK = {
    "paper": "#14171b",
    "ink": "#e6e8eb",
    "soft": "#a0a6ae",
    "rule": "#3a3f46",
    "wash": "#1d2126",
    "link": "#6db3f2",
    "warning": "#f0c15c",
    "warning-wash": "#2c2510",
    "failure": "#ff8f8f",
    "failure-wash": "#341a1c",
    "base": "#a9afb8",
    "c1": "#4aa8e0",
    "c2": "#f08a4b",
    "c3": "#35c59b",
    "c4": "#dd8fbf",
    "c5": "#e8b23e",
    "c6": "#8fcdf2",
}


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


STYLE = f""":root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(_DARK)} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans",
  sans-serif; }}
main {{ max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }}
h1 {{ font-size: 1.75rem; line-height: 1.25; margin: 0 0 .5rem; text-wrap: balance; }}
h2 {{ font-size: 1.25rem; margin: 2.75rem 0 .75rem; padding-top: .9rem;
  border-top: 1px solid var(--rule); }}
h3 {{ font-size: 1.02rem; margin: 1.75rem 0 .5rem; }}
p, ul {{ margin: .6rem 0; max-width: 46rem; }}
li {{ margin: .2rem 0; }}
a {{ color: var(--link); }}
code {{ font: .88em/1.4 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  background: var(--wash); padding: .08em .3em; border-radius: 3px; overflow-wrap: anywhere; }}
pre {{ background: var(--wash); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; }}
pre code {{ background: none; padding: 0; overflow-wrap: normal; }}
p.warning, p.failure {{ padding: .6rem .9rem; border-left: 4px solid; border-radius: 0 5px 5px 0; }}
p.warning {{ border-color: var(--warning); background: var(--warning-wash); }}
p.failure {{ border-color: var(--failure); background: var(--failure-wash); }}
p.warning > strong {{ color: var(--warning); }}
p.failure > strong {{ color: var(--failure); }}
.table {{ overflow-x: auto; margin: 1.25rem 0; }}
table {{ border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums;
  border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); width: 100%; }}
caption, figcaption {{ color: var(--soft); font-size: .875rem; line-height: 1.5;
  text-align: left; }}
caption {{ padding-bottom: .5rem; max-width: 52rem; }}
caption strong, figcaption strong {{ color: var(--ink); }}
th, td {{ padding: .34rem .75rem .34rem 0; text-align: left; vertical-align: top; }}
th {{ font-weight: 600; border-bottom: 1px solid var(--ink); vertical-align: bottom; }}
td.number, th.number {{ text-align: right; white-space: nowrap; }}
th:last-child, td:last-child {{ padding-right: 0; }}
td + td.number, th + th.number {{ padding-left: .5rem; }}
tbody tr + tr td {{ border-top: 1px solid var(--rule); }}
td code {{ background: none; padding: 0; overflow-wrap: normal; }}
tr.baseline td {{ background: var(--wash); }}
figure {{ margin: 1.75rem 0; }}
figure svg {{ display: block; width: 100%; height: auto; margin: 0 0 .5rem; }}
@media print {{
  :root {{ color-scheme: light; {_variables(LIGHT)} }}
  @page {{ margin: 18mm 16mm; }}
  body {{ font-size: 10pt; }}
  main {{ max-width: none; padding: 0; }}
  h2, h3 {{ break-after: avoid; }}
  figure, tr, p.warning, p.failure {{ break-inside: avoid; }}
  .table {{ overflow: visible; }}
  table {{ font-size: 8pt; }}
  caption, figcaption {{ font-size: 8.5pt; }}
  thead {{ display: table-header-group; }}
  a {{ color: inherit; text-decoration: none; }}
}}
"""
