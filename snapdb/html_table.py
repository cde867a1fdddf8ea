"""The first rows of something as an HTML table, for notebooks.

A notebook asks for this without being told to, so it reads a few rows whatever there is, escapes everything that comes
from data, and shows the ``repr`` where rows cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any, Callable

from .scan import iterate

if TYPE_CHECKING:
    from .scan import View
    from .schema import Schema

__all__ = ["SHOWN", "html_of", "html_table", "html_text", "kinds", "view_html"]

SHOWN = 10  # rows
_MOST_COLUMNS = 30
_LONGEST = 80  # characters of a cell

Rows = Iterable[tuple[Any, Sequence[Any]]]


def html_of(thing: object, table: Callable[[], str]) -> str:
    """What ``table`` gives; the ``repr`` where it raises, as it does when the thing is closed."""
    try:
        return table()
    except Exception as error:  # noqa: BLE001 - a notebook would show a traceback in the place of a value
        return html_text(f"{thing!r}\n{type(error).__name__}: {error}")


def html_text(text: str) -> str:
    """Text as it is."""
    return f"<pre>{escape(text)}</pre>"


def kinds(schema: Schema) -> list[tuple[str, str]]:
    """The columns of a schema for ``html_table``."""
    return [(column.name, column.dtype) for column in schema.columns]


def view_html(title: str, view: View, total: int) -> str:
    """The first live rows of a table, which has ``total``."""
    with view:
        rows = [(idx, list(row.values())) for idx, row in islice(iterate(view, SHOWN), SHOWN)]
        return html_table(title, kinds(view.schema), rows, total)


def html_table(title: str, columns: Sequence[tuple[str, str]], rows: Rows, total: int) -> str:
    """A table: ``columns`` are (name, type), ``rows`` (label, values), of which there are ``total`` or, where that is
    negative, perhaps more than are shown.
    """
    shown = list(islice(rows, SHOWN + 1))
    more, shown = len(shown) > SHOWN, shown[:SHOWN]
    hidden = len(columns) - _MOST_COLUMNS
    kept = columns[:_MOST_COLUMNS]
    lines = [f"<div><code>{escape(title)}</code>", "<table>", "<thead><tr><th></th>"]
    lines += [f"<th>{escape(name)}<br><small>{escape(kind)}</small></th>" for name, kind in kept]
    lines.append("</tr></thead><tbody>")
    for label, values in shown:
        cells = "".join(_cell(value) for value in values[:_MOST_COLUMNS])
        lines.append(f"<tr><th>{escape(str(label))}</th>{cells}</tr>")
    lines.append("</tbody></table>")
    left = [f"{total:,} rows"] if total >= 0 else ["there are more rows"] if more else []
    if hidden > 0:
        left.append(f"{hidden} columns more: {escape(', '.join(name for name, _ in columns[_MOST_COLUMNS:]))}")
    lines.append(f"<small>{'; '.join(left)}</small></div>" if left else "</div>")
    return "".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "<td><em>None</em></td>"
    side = ' style="text-align:right"' if isinstance(value, (int, float)) else ""
    return f"<td{side}>{escape(_cut(value if isinstance(value, str) else _text(value)))}</td>"


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return repr(value[:_LONGEST])
    return str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
