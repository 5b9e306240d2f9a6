"""HTML that needs nothing but itself: no file beside it, no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from matplotlib.figure import Figure

from snclr_jax.visualize.style import THEMES, encode

# Browsers then load what is in the page, and nothing else.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
PIXELS = 100  # of CSS for an inch of a figure
NARROW = 4.6  # inches of a figure that a phone shows
PHONE = "(max-width: 860px)"  # a figure of a laptop's page would be too small there
DARK = "(prefers-color-scheme: dark)"
LOSSLESS, PHOTO = {"lossless": True}, {"quality": 85}

STYLE = """
:root { color-scheme: light dark; --line: #d9dde2; --soft: #f4f6f8; --muted: #59626e; }
body { margin: 0 auto; max-width: 1080px; padding: 24px 20px 64px; color: %(text)s;
  background: %(background)s; font: 15px/1.5 system-ui, sans-serif; }
@media %(dark)s {
  :root { --line: #30363f; --soft: #1c2027; --muted: #a3acb8; }
  body { color: %(dark_text)s; background: %(dark_background)s; }
}
h1 { font-size: 26px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 40px 0 8px; padding-top: 12px;
  border-top: 1px solid var(--line); }
p { max-width: 76ch; margin: 6px 0 12px; overflow-wrap: anywhere; }
.muted, figcaption { color: var(--muted); font-size: 13.5px; }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr));
  gap: 10px; margin: 18px 0; }
.numbers div { background: var(--soft); border-radius: 8px; padding: 10px 14px; }
.numbers dt { color: var(--muted); font-size: 13px; }
.numbers dd { margin: 0; font-size: 19px; overflow-wrap: anywhere; }
dl { margin: 0; }
figure { display: inline-block; margin: 8px 0 12px; max-width: 100%%;
  vertical-align: top; }
img { display: block; max-width: 100%%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; margin: 8px 0 16px; }
th, td { text-align: left; padding: 3px 18px 3px 0; vertical-align: top;
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
td { overflow-wrap: anywhere; }
code { font: 13px/1.5 ui-monospace, monospace; }
pre { background: var(--soft); border-radius: 8px; padding: 10px 14px; overflow-x: auto;
  margin: 8px 0; }
summary { cursor: pointer; }
@media (max-width: 600px) {
  body { padding: 14px 18px 48px; }
  .numbers { grid-template-columns: repeat(auto-fill, minmax(138px, 1fr)); }
  .numbers dd { font-size: 17px; }
}
"""


class Drawing(NamedTuple):
    """A figure in each theme, and what it says to who does not see it.

    `narrow` is the same figure for phones, where the wide one would be too small.
    """

    name: str
    alt: str
    figures: dict[str, Figure]
    narrow: dict[str, Figure] | None = None
    photos: bool = False


class Section(NamedTuple):
    """A part of the page. `text` is plain; `html` is what this file has made."""

    title: str
    text: str = ""
    drawings: Sequence[Drawing] = ()
    html: str = ""


def page(
    title: str,
    subtitle: str,
    head: str,
    sections: Iterable[Section],
    *,
    style: str = "",
    script: str = "",
) -> str:
    """Returns a whole HTML page.

    Args:
      title: plain text.
      subtitle: plain text.
      head: HTML before the first section.
      sections: in order.
      style: CSS after that of every page.
      script: JavaScript at the end of the page, the only one that may run; "" for none.
    """
    policy = POLICY
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        script = f"<script>{script}</script>\n"
    light, dark = THEMES["light"], THEMES["dark"]
    common = STYLE % {
        "dark": DARK,
        "text": light.text,
        "background": light.background,
        "dark_text": dark.text,
        "dark_background": dark.background,
    }
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{common}{style}</style>\n</head>\n<body>",
            f'<h1>{escape(title)}</h1>\n<p class="muted">{escape(subtitle)}</p>',
            head,
            *map(_section, sections),
            f"{script}</body>\n</html>\n",
        ]
    )


def numbers(values: dict[str, str]) -> str:
    """Returns a grid of numbers, each under its name."""
    cells = (
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in values.items()
    )
    return f'<dl class="numbers">{"".join(cells)}</dl>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of plain text."""

    def row(cells: Sequence[str], tag: str) -> str:
        inner = "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{inner}</tr>"

    body = "\n".join(row(cells, "td") for cells in rows)
    return (
        f'<div class="wide"><table><thead>{row(head, "th")}</thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, html: str) -> str:
    """Returns what is shown when the summary is clicked."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def code(lines: Sequence[str]) -> str:
    """Returns lines of a terminal."""
    return f"<pre><code>{escape(chr(10).join(lines))}</code></pre>"


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{escape(section.text)}</p>")
    parts += [_picture(drawing) for drawing in section.drawings]
    return "\n".join([*parts, section.html])


def _picture(drawing: Drawing) -> str:
    form = PHOTO if drawing.photos else LOSSLESS

    def source(tag: str, figure: Figure) -> str:
        data = base64.b64encode(encode(figure, "webp", **form)).decode()
        width, height = (round(side * PIXELS) for side in figure.get_size_inches())
        return (
            f'{tag}="data:image/webp;base64,{data}" width="{width}" height="{height}"'
        )

    # The browser takes the first that fits it.
    kinds = [((DARK,), drawing.figures["dark"])]
    if drawing.narrow is not None:
        narrow = drawing.narrow["dark"], drawing.narrow["light"]
        kinds = [((PHONE, DARK), narrow[0]), ((PHONE,), narrow[1]), *kinds]
    sources = "".join(
        f'<source media="{" and ".join(media)}" {source("srcset", figure)}>'
        for media, figure in kinds
    )
    shown = source("src", drawing.figures["light"])
    return (
        f"<figure><picture>{sources}"
        f'<img {shown} alt="{escape(drawing.alt)}"></picture></figure>'
    )
