"""The pieces of a report page: HTML that stands alone, without scripts or links."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .curve_lines import rgb
from .pictures import Picture

Html = str
"""Ready for the page: every text in it is escaped."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #5b6570;
  --line: #d8dde3; --card: #f5f7f9; --accent: #2f6db5; --bar: #8fb8e8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --paper: #15181c;
  --soft: #9aa5b1; --line: #343b43; --card: #1f242a; --accent: #7fb2ee;
  --bar: #2f5f93; } }
* { box-sizing: border-box; }
html { font-size: 15px; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 68rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, "Segoe UI", Roboto, Helvetica,
  Arial, sans-serif; overflow-wrap: break-word; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.25; }
h2 { margin: 2.6rem 0 .7rem; padding-bottom: .25rem; font-size: 1.2rem;
  border-bottom: 1px solid var(--line); }
h3 { margin: 1.6rem 0 .4rem; font-size: 1rem; }
p, ul { margin: .5rem 0; max-width: 52rem; }
.soft, figcaption, caption { color: var(--soft); font-size: .87rem; }
.tiles { display: grid; gap: .7rem; margin: 1.4rem 0 1rem;
  grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.tile { padding: .7rem .9rem; background: var(--card); border-radius: 8px; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.3; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .82rem; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .6rem 0; }
th, td { padding: .28rem .7rem; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; }
th { font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
caption { text-align: left; padding-bottom: .3rem; }
.matrix td { text-align: right; padding: .25rem .4rem; min-width: 2.5rem;
  font-variant-numeric: tabular-nums; border: 1px solid var(--line); }
.matrix th { white-space: nowrap; padding: .25rem .4rem; }
.whole { white-space: nowrap; }
.swatch { display: inline-block; width: .85em; height: .85em; margin-right: .45em;
  border: 1px solid #0005; border-radius: 2px; vertical-align: -.06em; }
.bar { display: inline-block; width: 6rem; height: .7em; margin-right: .5em;
  background: var(--card); border-radius: 3px; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--bar); }
figure { margin: .8rem 0 0; }
figure.plot img { width: 100%; background: #fff; border-radius: 6px; }
.example { margin: 1.3rem 0 0; }
.panels { display: grid; gap: .6rem; margin-top: .4rem; }
.panel img { display: block; width: 100%; image-rendering: pixelated;
  border: 3px solid transparent; }
.panel b { font-size: .85rem; font-weight: 600; }
.panel span { display: block; color: var(--soft); font-size: .78rem; line-height: 1.3; }
.legend span { display: inline-block; margin-right: 1.2em; }
pre { padding: .7rem .9rem; background: var(--card); border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .83rem; max-height: 22rem;
  overflow-y: auto; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.note { padding: .1rem .9rem; border-left: 4px solid #d9a400; background: var(--card); }
details { margin: .6rem 0; }
summary { cursor: pointer; color: var(--accent); }
@media (max-width: 40rem) { .panels { grid-template-columns: 1fr 1fr !important; } }
@media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --soft: #444;
  --line: #bbb; --card: #f3f3f3; --accent: #000; --bar: #9dbbe0; }
  html { font-size: 10.5px; } body { padding: 0; max-width: none; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h2, h3 { break-after: avoid; } tr, .example, figure, .tiles { break-inside: avoid; }
  pre { max-height: none; } .wide { overflow: visible; }
  details::details-content { content-visibility: visible; block-size: auto; } }
"""


def text(value: object) -> Html:
    """Escape a text; control characters, which no page may hold, are replaced."""
    plain = "".join(
        letter if letter in "\n\t" or _may_stand(letter) else "\ufffd"
        for letter in str(value)
    )
    return html.escape(plain, quote=True)


def _may_stand(letter: str) -> bool:
    # Also not those that turn the direction of what follows them.
    return unicodedata.category(letter) not in ("Cc", "Cs") and (
        unicodedata.bidirectional(letter)
        not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    )


def page(title: str, body: Html) -> Html:
    """Return a whole document; nothing in it can load or run anything."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def section(title: str, *parts: Html) -> Html:
    """Return a heading with what belongs to it; nothing where there is nothing."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{text(title)}</h2>\n{body}\n</section>" if body else ""


def paragraph(content: str, style: str = "") -> Html:
    """Return a paragraph of plain text."""
    kind = f' class="{style}"' if style else ""
    return f"<p{kind}>{text(content)}</p>" if content else ""


def tiles(entries: Iterable[tuple[str, str]]) -> Html:
    """Return large figures, each with what it is."""
    body = "".join(
        f'<div class="tile"><b>{text(value)}</b><span>{text(name)}</span></div>'
        for value, name in entries
    )
    return f'<div class="tiles">{body}</div>'


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[Html]],
    numeric: Iterable[int] = (),
    caption: str = "",
) -> Html:
    """Return a table.

    Parameters
    ----------
    head
        Plain texts.
    rows
        Cells, escaped already.
    numeric
        Columns that are flush right.
    caption
        Plain text.
    """
    right = set(numeric)

    def cells(tag: str, row: Sequence[Html]) -> Html:
        return "".join(
            f"<{tag}{' class=n' if n in right else ''}>{cell}</{tag}>"
            for n, cell in enumerate(row)
        )

    said = f"<caption>{text(caption)}</caption>" if caption else ""
    top = cells("th", [text(name) for name in head])
    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table>{said}<thead><tr>{top}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def details(summary: str, body: Html) -> Html:
    """Return something that is folded away."""
    return f"<details><summary>{text(summary)}</summary>\n{body}\n</details>"


def swatch(color: str) -> Html:
    """Return a small square of a colour."""
    return f'<i class="swatch" style="background:{css_color(color)}"></i>'


def css_color(color: str) -> str:
    """Return a colour as ``#rrggbb``, whatever came."""
    return "#" + "".join(f"{channel:02x}" for channel in rgb(color))


def bar(share: float) -> Html:
    """Return a horizontal bar of a share from 0 to 1; empty where it is no number."""
    if not math.isfinite(share):
        return ""
    width = 100 * min(max(share, 0.0), 1.0)
    return f'<span class="bar"><i style="width:{width:.1f}%"></i></span>'


def png_image(content: bytes, description: str) -> Html:
    """Return a PNG file as part of the page."""
    data = base64.b64encode(content).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{text(description)}">'


def picture_image(picture: Picture, description: str) -> Html:
    """Return (H, W, 3) pixels as part of the page."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png")
    return png_image(buffer.getvalue(), description)


def count(value: float) -> str:
    """Return a whole number with its thousands set off."""
    return f"{value:,.0f}".replace(",", "\u202f") if math.isfinite(value) else "–"


def brief(value: float) -> str:
    """Return a whole number to three digits, thousands as k, M and G."""
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}\u202f{name}"
    return count(value)


def figure(value: float, digits: int = 3) -> str:
    """Return a number for people; a dash where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def percent(share: float, digits: int = 1) -> str:
    """Return a share as per cent; a dash where there is none."""
    return f"{100 * share:.{digits}f}\u202f%" if math.isfinite(share) else "–"


def duration(seconds: float) -> str:
    """Return a time in the two largest units that it has."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    for name, small, size, part in (
        ("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1),
    ):  # fmt: skip
        if whole >= size:
            return f"{whole // size} {name} {whole % size // part} {small}"
    return f"{whole} s"


def setting(value: Any) -> str:
    """Return the value of a setting for people."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return json.dumps(dict(value), default=str)
    if isinstance(value, (list, tuple)):
        return ", ".join(setting(part) for part in value) or "none"
    return str(value)
