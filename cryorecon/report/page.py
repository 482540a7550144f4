"""One self-contained HTML page: text, tables and pictures in one file that opens offline, dark or light, any width.

Nothing leaves the page and nothing comes in: its policy forbids every request, and every script but those that it was written
with, by their hashes.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from cryorecon.data.files import atomic_path

OFFLINE = "connect-src 'none'"
STYLE = """
:root { color-scheme: light dark; --ground: #f5f6f8; --card: #fff; --ink: #1c2430; --quiet: #5b6675; --line: #dfe3e9;
  --accent: #1f6fb4; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181f; --card: #1d232c; --ink: #e6eaf0; --quiet: #9aa6b5;
  --line: #333c48; --accent: #6cb2ec; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 34px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 4px; }
p { margin: 4px 0 12px; color: var(--quiet); max-width: 75ch; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 10px 0 4px; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px; margin: 18px 0; }
.pictures { display: flex; flex-wrap: wrap; gap: 18px; }
figure { margin: 0; flex: 1 1 auto; max-width: 100%; min-width: min(100%, 250px); }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 8px; padding: 6px; }
@media (min-width: 700px) { figure img { max-height: 620px; } }
figcaption { color: var(--quiet); font-size: .87rem; margin-top: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 18px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--quiet); font-weight: 600; white-space: nowrap; }
@media (max-width: 600px) { th { white-space: normal; } th, td { padding-right: 10px; } }
h3 { font-size: 1rem; margin: 14px 0 0; }
code { font: .85em ui-monospace, monospace; overflow-wrap: anywhere; }
footer { color: var(--quiet); font-size: .85rem; padding-bottom: 40px; }
"""


@dataclass(frozen=True)
class Picture:
    """path: a PNG file. caption: one line, also read to those who don't see it. width: shown at most so wide, in px.
    instead: what takes its place where the browser can, ``points`` or ``surface`` of the explorer; empty: nothing does."""

    path: Path
    caption: str
    width: int = 1100
    instead: str = ""


@dataclass(frozen=True)
class Table:
    """header: column names. rows: cells as text. code: columns (from 0) set in a typewriter's letters. series: row i shows
    map i of this series in the explorer; empty: rows show nothing."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    code: Sequence[int] = ()
    series: str = ""


@dataclass(frozen=True)
class Section:
    """title, text: plain words. pictures, tables: what is shown below them. markup: HTML as it is, between words and
    pictures, of this package's own files and :func:`embedded` data alone."""

    title: str
    text: str = ""
    pictures: Sequence[Picture] = field(default_factory=tuple)
    tables: Sequence[Table] = field(default_factory=tuple)
    markup: str = ""


def ending(folder: Path, files: Mapping[str, str], facts: Mapping[str, str]) -> list[Section]:
    """The last sections of every report: its files, name -> what it is, and ``facts``, name -> words, on how it was made."""
    return [Section("Files", f"In {folder}", tables=[Table(("file", "what it is"), list(files.items()), (0,))]),
            Section("How this was made", tables=[Table(("", ""), list(facts.items()), (1,))])]


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.path.read_bytes()).decode()
    caption = escape(picture.caption)
    kind = f' class="fallback-{picture.instead}"' if picture.instead else ""
    return (f'<figure{kind} style="max-width:min(100%,{picture.width}px)"><img alt="{caption}" '
            f'src="data:image/png;base64,{data}"><figcaption>{caption}</figcaption></figure>')


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    body = ""
    for number, row in enumerate(table.rows):
        cells = (f"<code>{escape(cell)}</code>" if i in table.code else escape(cell) for i, cell in enumerate(row))
        shows = f' data-series="{escape(table.series)}" data-volume="{number}"' if table.series else ""
        body += f"<tr{shows}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _section(number: int, section: Section) -> str:
    text = f"<p>{escape(section.text)}</p>" if section.text else ""
    pictures = "".join(map(_picture, section.pictures))
    shown = f'<div class="pictures">{pictures}</div>' if pictures else ""
    tables = "".join(map(_table, section.tables))
    return f'<section id="s{number}"><h2>{escape(section.title)}</h2>{text}{section.markup}{shown}{tables}</section>'


def embedded(data: Any, kind: str) -> str:
    """``data`` as JSON in the page, for scripts to read by its class ``kind``; no word of it can end the element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" class="{kind}">{text}</script>'


def _policy(scripts: Sequence[str]) -> str:
    """Content-Security-Policy of a page with these scripts. ``unsafe-eval``: plotly's WebGL part (regl) writes functions."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(["'unsafe-eval'", *(f"'sha256-{digest}'" for digest in hashes)]) if scripts else "'none'"
    return (f"default-src 'none'; {OFFLINE}; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
            "base-uri 'none'; form-action 'none'")


def served(page: str) -> str:
    """The page as ``serve`` gives it out: its scripts may ask the server that it came from."""
    return page.replace(OFFLINE, "connect-src 'self'", 1).replace('<html lang="en">', '<html lang="en" data-served>', 1)


def write_page(path: Path, title: str, subtitle: str, sections: Sequence[Section], footer: str, style: str = "",
               scripts: Sequence[str] = ()) -> Path:
    """Write the page to ``path`` and return it. All words are escaped; pictures, styles and scripts are embedded."""
    links = "".join(f'<a href="#s{i}">{escape(section.title)}</a>' for i, section in enumerate(sections))
    body = "\n".join(_section(i, section) for i, section in enumerate(sections))
    code = "".join(f"<script>{script}</script>\n" for script in scripts)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{escape(title)}</title><style>{STYLE}{style}</style></head>
<body><header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p><nav>{links}</nav></header>
<main>
{body}
</main><footer>{escape(footer)}</footer>
{code}</body></html>
"""
    with atomic_path(path) as temporary:
        temporary.write_bytes(page.encode())
    return path
