"""One self-contained page: verdict in words, then figures, then every number."""

import base64
import functools
import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from avae_jax import text
from avae_jax.evaluation.verdict import Finding


class Picture(NamedTuple):
    """A figure of the page.

    Attributes:
      title: what it shows.
      caption: how to read it, a sentence or two.
      data: the bytes of a PNG or GIF.
      kind: "png" or "gif".
      width: CSS pixels it is shown at; None is its own width, at most the page's.
      file: its name in the run's `figures/`, without suffix; empty where it is not kept there.
    """

    title: str
    caption: str
    data: bytes
    kind: str = "png"
    width: int | None = None
    file: str = ""


class Section(NamedTuple):
    """A table of the page.

    Attributes:
      heading: what its numbers are about.
      note: how to read them; empty for none.
      numbers: nested mappings become parts of the table; `name_null`, `name_null_std` and
        `name_stderr` stand in the columns of `name`.
    """

    heading: str
    note: str
    numbers: Mapping[str, Any]


class Table(NamedTuple):
    """A table of several runs.

    Attributes:
      heading: what it holds.
      note: how to read it; empty for none.
      columns: names of the columns after the first.
      rows: (quantity, one cell a column); a row without cells is a heading.
    """

    heading: str
    note: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


number = functools.partial(text.number, typographic=True)
"""Write a value for a person: three significant digits, a dash for what is not defined."""

_STYLE = """
:root { --ink:#23272e; --quiet:#69717d; --line:#e2e5ea; --paper:#fff; --soft:#f6f7f9;
  --good:#2f7d4f; --notice:#b06a10; --fault:#b3342c; }
* { box-sizing:border-box; }
body { margin:0; background:var(--paper); color:var(--ink);
  font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif; }
main { max-width:1060px; margin:0 auto; padding:32px 24px 80px; }
h1 { font-size:1.65rem; line-height:1.25; margin:0 0 4px; }
h2 { font-size:1.2rem; margin:44px 0 12px; padding-top:12px; border-top:1px solid var(--line); }
h3 { font-size:1rem; margin:24px 0 6px; }
.about { color:var(--quiet); margin:0 0 20px; }
.verdict { border-left:6px solid var(--quiet); background:var(--soft); padding:14px 20px;
  border-radius:0 8px 8px 0; }
.verdict.fault { border-color:var(--fault); } .verdict.notice { border-color:var(--notice); }
.verdict.good { border-color:var(--good); }
.verdict p { font-size:1.15rem; font-weight:600; margin:0 0 8px; }
.verdict ul { margin:0; padding:0; list-style:none; }
.verdict li { display:flex; gap:.6em; align-items:baseline; margin:5px 0; }
.tag { flex:0 0 4.9em; font-size:.78rem; font-weight:600; text-align:center; border-radius:10px;
  color:#fff; padding:1px 0; }
.tag.fault { background:var(--fault); } .tag.notice { background:var(--notice); }
.tag.good { background:var(--good); }
.cards { display:flex; flex-wrap:wrap; gap:12px; margin:22px 0 0; padding:0; list-style:none; }
.cards li { flex:1 1 150px; border:1px solid var(--line); border-radius:8px; padding:10px 14px; }
.cards b { display:block; font-size:1.35rem; font-variant-numeric:tabular-nums; }
.cards span { display:block; color:var(--quiet); font-size:.85rem; }
figure { margin:0 0 26px; } figure img { max-width:100%; height:auto; display:block; }
figcaption { color:var(--quiet); font-size:.92rem; max-width:70ch; margin-top:6px; }
figcaption b { color:var(--ink); display:block; }
.side { display:grid; grid-template-columns:repeat(auto-fit,minmax(300px,1fr)); gap:0 24px; }
.scroll { overflow-x:auto; }
table { border-collapse:collapse; font-size:.9rem; margin:4px 0 10px; }
th,td { padding:4px 14px 4px 0; text-align:left; border-bottom:1px solid var(--line);
  vertical-align:top; }
th { font-weight:600; color:var(--quiet); } td.n { text-align:right;
  font-variant-numeric:tabular-nums; white-space:nowrap; } th.n { text-align:right; }
.note { color:var(--quiet); font-size:.9rem; margin:2px 0 8px; }
@media (prefers-reduced-motion: reduce) { .moving { display:none; } }
"""


def make_page(
    *,
    title: str,
    about: str,
    headline: str,
    findings: Sequence[Finding],
    cards: Sequence[tuple[str, str, str]],
    pictures: Mapping[str, Sequence[Picture]],
    sections: Sequence[Section],
) -> str:
    """Return the page as text: no script, no font and no picture from elsewhere.

    Args:
      title: the page's title.
      about: one line on what was evaluated.
      headline: the verdict in a sentence or two.
      findings: what it is made of, the gravest first.
      cards: (label, value, what to compare it with) of the few numbers that matter most.
      pictures: heading -> figures under it.
      sections: the tables of all numbers.
    """
    level = findings[0].level if findings else "good"
    parts = [
        *_head(title, about),
        f'<section class="verdict {level}" aria-label="Verdict">',
        f"<p>{html.escape(headline)}</p>{_listed(findings)}</section>",
    ]
    if cards:
        parts.append('<ul class="cards">')
        for label, value, beside in cards:
            shown = (html.escape(part) for part in (label, value, beside))
            parts.append("<li><span>{}</span><b>{}</b><span>{}</span></li>".format(*shown))
        parts.append("</ul>")
    for heading, group in pictures.items():
        if group:
            parts.append(f"<h2>{html.escape(heading)}</h2>")
            parts += [_figure(picture) for picture in group]
    if sections:
        parts.append("<h2>All numbers</h2>")
        parts.append(
            '<p class="note">null: what the same estimator gives for as many draws of the prior '
            "or of noise codes, with its standard deviation; for reconstructions the mean image. "
            "Floor: training images in place of samples. A dash: not defined here.</p>"
        )
    for section in sections:
        parts.append(f"<h3>{html.escape(section.heading)}</h3>")
        if section.note:
            parts.append(f'<p class="note">{html.escape(section.note)}</p>')
        if section.numbers:
            parts.append(_table(section.numbers))
    parts.append("</main></body></html>")
    return "\n".join(parts) + "\n"


def make_comparison(
    *,
    title: str,
    about: str,
    pictures: Mapping[str, Sequence[Picture]],
    tables: Sequence[Table],
    verdicts: Sequence[tuple[str, str, Sequence[Finding]]],
) -> str:
    """Return a page with several runs side by side.

    Args:
      title: the page's title.
      about: one line on what was compared.
      pictures: heading -> the same figure of each run.
      tables: the numbers.
      verdicts: (run, its headline, its findings).
    """
    parts = _head(title, about)
    for name, headline, findings in verdicts:
        level = findings[0].level if findings else "good"
        said = html.escape(headline)
        parts.append(f"<h3>{html.escape(name)}</h3>")
        parts.append(f'<section class="verdict {level}"><p>{said}</p>{_listed(findings)}</section>')
    for heading, group in pictures.items():
        if group:
            parts.append(f'<h2>{html.escape(heading)}</h2><div class="side">')
            parts += [*map(_figure, group), "</div>"]
    parts += map(_side_by_side, tables)
    parts.append("</main></body></html>")
    return "\n".join(parts) + "\n"


def _side_by_side(table: Table) -> str:
    heads = "".join(f'<th class="n">{html.escape(column)}</th>' for column in table.columns)
    parts = [f"<h2>{html.escape(table.heading)}</h2>"]
    if table.note:
        parts.append(f'<p class="note">{html.escape(table.note)}</p>')
    parts.append(f'<div class="scroll"><table><tr><th></th>{heads}</tr>')
    for name, cells in table.rows:
        if not cells:
            span = len(table.columns) + 1
            parts.append(f'<tr><th colspan="{span}">{html.escape(name)}</th></tr>')
            continue
        shown = "".join(f'<td class="n">{html.escape(cell)}</td>' for cell in cells)
        parts.append(f"<tr><td>{html.escape(name)}</td>{shown}</tr>")
    return "\n".join([*parts, "</table></div>"])


def _head(title: str, about: str) -> list[str]:
    return [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><main>",
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="about">{html.escape(about)}</p>',
    ]


def _listed(findings: Sequence[Finding]) -> str:
    items = []
    for finding in findings:
        tag = f'<span class="tag {finding.level}">{finding.level}</span>'
        items.append(f"<li>{tag}<span>{html.escape(_sentence(finding.text))}</span></li>")
    return f"<ul>{''.join(items)}</ul>"


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith(".") else ".")


def _figure(picture: Picture) -> str:
    encoded = base64.b64encode(picture.data).decode("ascii")
    width = f' style="width:{picture.width}px"' if picture.width else ""
    moving = ' class="moving"' if picture.kind == "gif" else ""
    title = html.escape(picture.title)
    return (
        f'<figure{moving}><img{width} alt="{title}" '
        f'src="data:image/{picture.kind};base64,{encoded}">'
        f"<figcaption><b>{title}</b>{html.escape(picture.caption)}</figcaption></figure>"
    )


# Longer cells are text.
_LONGEST_NUMBER = 18
_SUFFIXES = ("_null_std", "_null", "_stderr", "_ceiling")


def _table(numbers: Mapping[str, Any]) -> str:
    rows = _rows(numbers, "")
    has = [any(row[column] for row in rows) for column in range(6)]
    names = ("", "value", "± s.e.", "null", "± s.d.", "ceiling")
    kept = [column for column in range(6) if has[column] or column < 2]
    heads = (f"<th{' class=n' if c else ''}>{names[c]}</th>" for c in kept)
    lines = [f"<tr>{''.join(heads)}</tr>"]
    for row in rows:
        if row[1] is None:
            lines.append(f'<tr><th colspan="{len(kept)}">{html.escape(row[0])}</th></tr>')
            continue
        if len(row[1]) > _LONGEST_NUMBER:
            cell = f'<td colspan="{len(kept) - 1}">{html.escape(row[1])}</td>'
            lines.append(f"<tr><td>{html.escape(row[0])}</td>{cell}</tr>")
            continue
        cells = (f"<td{' class=n' if c else ''}>{html.escape(row[c] or '')}</td>" for c in kept)
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _rows(numbers: Mapping[str, Any], prefix: str) -> list[tuple[str, Any, str, str, str, str]]:
    rows: list[tuple[str, Any, str, str, str, str]] = []
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            rows.append((prefix + name.replace("_", " "), None, "", "", "", ""))
            rows += _rows(value, prefix)
            continue
        owners = [name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)]
        if any(owner in numbers for owner in owners):
            continue
        stderr, null, spread, ceiling = (
            number(numbers[f"{name}{end}"]) if f"{name}{end}" in numbers else ""
            for end in ("_stderr", "_null", "_null_std", "_ceiling")
        )
        label = prefix + name.replace("_", " ")
        rows.append((label, number(value), stderr, null, spread, ceiling))
    return rows
