"""The page around a report: its style, and the parts that pages are built from."""

import html
import re
from collections.abc import Iterable, Sequence

STYLE = """
:root { color-scheme: light dark; --text: #1d2733; --soft: #53616f; --page: #f6f7f9; --card: #ffffff; --line: #dde2e8;
  --link: #0b57b0; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e9ef; --soft: #a9b6c4; --page: #12171d; --card: #1b222b;
  --line: #34404d; --link: #8ac1ff; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 0; overflow-wrap: break-word; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1.5rem 4rem; }
main:focus { outline: none; }
a { color: var(--link); } :focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -999rem; } .skip:focus { left: 1rem; top: 0.5rem; padding: 0.5rem 1rem; background: var(--card); }
h1 { font-size: 2rem; line-height: 1.2; margin: 1.5rem 0 0; letter-spacing: -0.02em; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 0.6rem; } h3 { font-size: 1.05rem; margin: 1.8rem 0 0.6rem; } h4 { margin: 1.4rem 0 0.5rem; }
p { margin: 0.6rem 0; max-width: 46rem; }
.facts { color: var(--soft); margin: 0.2rem 0 1rem; } .note, footer, dl { color: var(--soft); font-size: 0.9rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; padding: 0; list-style: none; font-size: 0.9rem; }
figure { margin: 0.8rem 0; } figcaption { color: var(--soft); font-size: 0.9rem; margin-top: 0.6rem; max-width: 46rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: 0.8rem; align-items: start; }
figure img { width: 100%; height: auto; display: block; background: #fff; border: 1px solid var(--line); border-radius: 10px;
  padding: 0.7rem; }
figure > img, .cards img { max-width: 40rem; } .cards img { max-width: 32rem; }
.scroll { overflow-x: auto; margin: 0.8rem 0; border: 1px solid var(--line); border-radius: 10px; background: var(--card); }
table { border-collapse: collapse; width: 100%; background: var(--card); } main > table { display: block; overflow-x: auto; }
caption { text-align: left; padding: 0.6rem 0.9rem; color: var(--soft); font-size: 0.9rem; }
caption span { display: inline-block; position: sticky; left: 0.9rem; max-width: calc(100vw - 4.5rem); }
th, td { text-align: right; padding: 0.5rem 0.8rem; border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th:not([scope=row]) { font-weight: 600; color: var(--soft); font-size: 0.85rem; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; } tbody th { font-weight: 400; }
td, tbody th { white-space: nowrap; } tr:last-child td, tbody tr:last-child th { border-bottom: 0; } .main { font-weight: 700; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: 0.3rem 1rem; margin: 0.8rem 0; }
dt { font-weight: 600; color: var(--text); } dd { margin: 0; max-width: 42rem; }
@media (max-width: 34rem) { main { padding: 1rem 1rem 3rem; } dl { display: block; } dd { margin-bottom: 0.5rem; } }
footer { margin-top: 3rem; border-top: 1px solid var(--line); } pre { overflow-x: auto; font-size: 0.8rem; }
summary { cursor: pointer; }
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head><body><a class="skip" href="#main">Skip to the content</a><main id="main" tabindex="-1">
{body}
</main></body></html>
"""

SYMBOLS = {"τ_R": "τ<sub>R</sub>", "τ_Q": "τ<sub>Q</sub>"}  # as pages write them


def text(plain: str) -> str:
    """Plain text as HTML, symbols with their subscripts, and `commands` as code."""
    escaped = re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(plain))
    for symbol, written in SYMBOLS.items():
        escaped = escaped.replace(symbol, written)
    return escaped


def section(title: str, *parts: str) -> str:
    """A part of the page under a heading of its own, which `contents` lists. Nothing where there are no parts."""
    body = "\n".join(filter(None, parts))
    if not body:
        return ""
    name = _slug(title)
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{html.escape(title)}</h2>\n{body}\n</section>'


def paragraph(plain: str, *, kind: str = "") -> str:
    """A paragraph of plain text."""
    name = f' class="{kind}"' if kind else ""
    return f"<p{name}>{text(plain)}</p>"


def table(caption: str, head: Sequence[str], *, rows: Iterable[Sequence[str]], main: str = "") -> str:
    """A table of plain texts that scrolls by itself where the screen is narrow. The column named `main` stands out."""
    top = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    lines = []
    for first, *rest in rows:
        marks = (' class="main"' if name == main else "" for name in head[1:])
        cells = "".join(f"<td{mark}>{text(cell)}</td>" for mark, cell in zip(marks, rest, strict=True))
        lines.append(f'<tr><th scope="row">{text(first)}</th>{cells}</tr>')
    label = html.escape(caption, quote=True)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table><caption><span>{text(caption)}</span></caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def terms(explained: dict[str, str]) -> str:
    """List of symbols and words with their meaning, to stand where they are used."""
    return (
        f"<dl>{''.join(f'<dt>{text(term)}</dt><dd>{text(meaning)}</dd>' for term, meaning in explained.items())}</dl>"
    )


def contents(body: str, whose: str) -> str:
    """Links to the sections of a page or of a part of it."""
    headings = re.findall(r'<h2 id="([^"]+)">([^<]*)</h2>', body)
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in headings)
    label = html.escape(f"Sections of {whose}")
    return f'<nav aria-label="{label}"><ul>{links}</ul></nav>' if len(headings) > 1 else ""


def below(body: str, prefix: str) -> str:
    """A page's body as a part of another page: headings one level lower, names of places with a prefix."""
    body = re.sub(r"<(/?)h([1-5])\b", lambda tag: f"<{tag[1]}h{int(tag[2]) + 1}", body)
    body = re.sub(r' (id|aria-labelledby)="([^"]+)"', rf' \1="{prefix}-\2"', body)
    return body.replace(' href="#', f' href="#{prefix}-')


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
