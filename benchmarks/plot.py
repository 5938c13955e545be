"""The plot: horizontal bars on a log scale, a panel a group, as a small SVG.

Written by hand rather than by a plotting library: it is all text and rectangles, weighs little,
changes in a readable way, and follows the reader's light or dark background.
"""

import math
from html import escape

from benchmarks.results import OURS, TIMES, duration

WIDTH, MARGIN = 920, 14
LINE, BAR = 15, 10  # pixels from row to row, and of a bar
HEAD = 34  # above the bars of a panel
VALUE = 50  # right of the longest bar
COMMON_NAMES, OTHER_NAMES = 262, 262

STYLE = """
  text { font: 11px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
  text { fill: #1f2328 }
  .title { font-weight: 600; font-size: 12px }
  .ours-name { fill: #0550ae }
  .note, .value { fill: #59636e }
  .value { font-size: 10px; paint-order: stroke; stroke: #ffffff; stroke-width: 3px }
  .back { fill: #ffffff }
  .peer { fill: #b4bdc7 }
  .ours { fill: #0969da }
  .grid { stroke: #e4e8ec }
  .base { stroke: #59636e; stroke-dasharray: 3 2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .ours-name { fill: #79b8ff }
    .note, .value { fill: #9aa4ae }
    .value { stroke: #0d1117 }
    .back { fill: #0d1117 }
    .peer { fill: #4d5661 }
    .ours { fill: #4493f8 }
    .grid { stroke: #22272e }
    .base { stroke: #9aa4ae }
  }
"""


def drawn(run):
    """The whole plot as SVG."""
    marks, below = [], MARGIN
    if run.common:
        below = _common(marks, run, below)
    for pair in (run.others[:2], run.others[2:]):
        if pair:
            below = _others(marks, pair, below)
    note = "Median time, log scale: a grey line for each power of ten. Blue: shmcompute. Dashed: "
    marks.append(_text(MARGIN, below + 4, note + "the row that others are compared with.", "note"))
    height = below + 16
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img">',
            f"<title>Benchmarks of {escape(run.date)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="back" width="{WIDTH}" height="{height}" rx="6"/>',
            *marks,
            "</svg>\n",
        ]
    )


def _common(marks, run, top):
    """One list of names, and a panel for each group beside it."""
    _names(marks, run.rows, MARGIN + COMMON_NAMES - 8, top)
    width = (WIDTH - 2 * MARGIN - COMMON_NAMES) / len(run.common)
    for number, group in enumerate(run.common):
        _panel(marks, group, run.rows, MARGIN + COMMON_NAMES + number * width, top, width)
    return top + HEAD + LINE * len(run.rows) + 18


def _others(marks, groups, top):
    """Two panels side by side, each with names of its own."""
    width = (WIDTH - 2 * MARGIN) / 2
    for number, group in enumerate(groups):
        left, names = MARGIN + number * width, list(group.rows)
        _names(marks, names, left + OTHER_NAMES - 8, top)
        _panel(marks, group, names, left + OTHER_NAMES, top, width - OTHER_NAMES)
    return top + HEAD + LINE * max(len(group.rows) for group in groups) + 18


def _names(marks, names, right, top):
    for number, name in enumerate(names):
        kind = "ours-name" if name.startswith(OURS) else "name"
        marks.append(_text(right, _row(top, number) + BAR - 1, name, kind, "end"))


def _panel(marks, group, names, left, top, width):
    """A bar for each of the names that was measured."""
    shortest, longest = min(group.rows.values()) / 2, max(group.rows.values())
    scale = (width - VALUE) / math.log(longest / shortest)

    def x(seconds):
        return left + scale * math.log(seconds / shortest)

    bottom = _row(top, len(names)) - LINE + BAR + 3
    marks.append(_text(left, top + 11, group.name, "title"))
    marks.append(_text(left, top + 24, f"{TIMES} {group.base}", "note"))
    first = math.ceil(math.log10(shortest))
    for power in range(first, math.floor(math.log10(longest)) + 1):
        marks.append(_line(x(10.0**power), top + HEAD - 4, bottom, "grid"))
    for number, name in enumerate(names):
        if name in group.rows:
            marks.append(_bar(left, _row(top, number), x(group.rows[name]) - left, name))
    if group.base in group.rows:
        marks.append(_line(x(group.rows[group.base]), top + HEAD - 4, bottom, "base"))
    for number, name in enumerate(names):
        if name in group.rows:
            y, said = _row(top, number) + BAR - 1, duration(group.rows[name])
            marks.append(_text(x(group.rows[name]) + 4, y, said, "value"))


def _bar(left, y, width, name):
    kind = "ours" if name.startswith(OURS) else "peer"
    return f'<rect class="{kind}" x="{left:.1f}" y="{y}" width="{width:.1f}" height="{BAR}"/>'


def _row(top, number):
    return top + HEAD + LINE * number


def _text(x, y, text, kind, anchor="start"):
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _line(x, top, bottom, kind):
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
