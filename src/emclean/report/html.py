"""Small pieces of HTML: every text is escaped here, and only here; what is not known becomes a dash."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from typing import Any

from emclean.report.data import Estimated, Figure

DASH = "–"
ABOUT = "≈"
"""Stands before a figure that is estimated, not measured."""
MASK = "********"

# Nothing may be loaded from anywhere: pictures are in the page, and no script runs, whatever a name says.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_SECRET = re.compile(r"token|passw|secret|api_?key|access_?key|authorization|credential", re.IGNORECASE)
_NO_SECRET = re.compile(r"_(file|path)$", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_QUERY = re.compile(r"(?i)([?&][^=&\s]*(?:token|key|secret|signature|password)[^=&\s]*=)[^&\s]+")


def text(value: Any) -> str:
    """A value as escaped text; None is a dash."""
    return DASH if value is None else escape(str(value))


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many digits after the point; None and NaN are a dash."""
    return DASH if value is None or value != value else f"{value:.{digits}f}"


def measured(value: float | None, estimate: Estimated | None) -> str:
    """A figure as measured; where only an estimate is known, that one, marked with :data:`ABOUT`."""
    if value is None and estimate is not None:
        return f"{ABOUT}\u202f{estimate.value:.2f}"
    return number(value)


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction 0-1 as per cent; None and NaN are a dash."""
    return DASH if value is None or value != value else f"{100 * value:.{digits}f} %"


def whole(value: int | None) -> str:
    """A count; None is a dash."""
    return DASH if value is None else f"{value:,}".replace(",", "\u202f")


def moment(iso: str) -> str:
    """A moment in ISO form as people write it, to the minute; any other text stays as it is."""
    try:
        at = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return at.strftime("%Y-%m-%d %H:%M %Z").strip()


def link(address: str | None) -> str:
    """A link to an ``http`` address; anything else stays text, so that no address can run a script."""
    if address is None:
        return DASH
    shown = escape(masked("", address))
    return f'<a href="{shown}">{shown}</a>' if re.match(r"https?://", address) else shown


def masked(key: str, value: Any) -> str:
    """A configuration value as text, its secrets replaced by stars."""
    if value is None:
        return DASH
    if _SECRET.search(key) and not _NO_SECRET.search(key):
        return MASK
    return _QUERY.sub(rf"\g<1>{MASK}", _USERINFO.sub(MASK, str(value)))


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """A nested mapping as ``a.b`` keys and values, in its order."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def pairs(rows: Mapping[str, Any]) -> str:
    """A definition list of a (nested) mapping, secrets masked."""
    items = (f'<dt>{text(key)}</dt><dd class="code">{escape(masked(key, v))}</dd>' for key, v in flat(rows))
    return f"<dl>{''.join(items)}</dl>"


def image(figure: Figure) -> str:
    """A figure with its caption; the dark variant is chosen by the reader's own setting."""
    source = ""
    if figure.dark is not None:
        source = f'<source media="(prefers-color-scheme: dark)" srcset="{_data(figure.dark)}">'
    words = f"<b>{text(figure.title)}</b> {text(figure.caption or '')}"
    picture = f'<picture>{source}<img src="{_data(figure.png)}" alt="{text(figure.title)}"></picture>'
    return f"<figure>{picture}<figcaption>{words}</figcaption></figure>"


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int] = (0,), long: Sequence[int] = ()
) -> str:
    """A table of cells that are HTML already.

    The columns in ``left`` hold text, the others figures; long texts in ``long`` may be broken anywhere.
    """

    def cells(tag: str, row: Sequence[str]) -> str:
        names = {i: "text long" if i in long else "text" for i in left}
        kinds = (f' class="{names[i]}"' if i in names else "" for i in range(len(row)))
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    top = f"<thead><tr>{cells('th', head)}</tr></thead>"
    return f'<div class="wide"><table>{top}<tbody>{body}</tbody></table></div>'


def section(title: str, *content: str, note: str = "") -> str:
    """A titled part of the page; nothing at all when it has no content."""
    inside = "".join(content)
    if not inside:
        return ""
    words = f'<p class="note">{text(note)}</p>' if note else ""
    return f"<section><h2>{text(title)}</h2>{words}{inside}</section>"


def titled(title: str, content: str) -> str:
    """A part of a section with a heading of its own."""
    return f"<h3>{text(title)}</h3>{content}"


def folded(title: str, content: str) -> str:
    """A part of the page that the reader opens."""
    return f"<section><details><summary>{text(title)}</summary>{content}</details></section>"


def document(title: str, body: str) -> str:
    """A whole page in the report's style, that needs nothing else: no network, no script."""
    style = files("emclean.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{style}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )
