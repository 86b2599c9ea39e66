"""Bars with their spread, as SVG and with nothing to install."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

import attrs

__all__ = ["Panel", "draw"]

_WIDTH: Final = 460
_BAR: Final = 18
_GAP: Final = 6
_LABELS: Final = 150
_NUMBERS: Final = 70
_HEAD: Final = 34
_OWN: Final = "#0b7a75"
_OTHERS: Final = "#9aa5b1"


@attrs.frozen(kw_only=True)
class Panel:
    """One measure.

    Args:
        title: what stands above it.
        values: name and figures of each bar; a bar without figures is left out.
        form: how a figure is written.
        highlight: the bar with a colour of its own.
    """

    title: str
    values: Sequence[tuple[str, Sequence[float]]]
    form: Callable[[float], str]
    highlight: str

    @property
    def bars(self) -> list[tuple[str, Sequence[float]]]:
        """The bars that are drawn."""
        return [(name, figures) for name, figures in self.values if figures]

    @property
    def height(self) -> int:
        """How high it is, in pixels."""
        return _HEAD + len(self.bars) * (_BAR + _GAP) + 16


def draw(panels: Sequence[Panel]) -> str:
    """A picture of panels, two in a row, on scales that begin at zero."""
    rows = [panels[first : first + 2] for first in range(0, len(panels), 2)]
    heights = [max(panel.height for panel in row) for row in rows]
    width, height = 2 * _WIDTH + 20, sum(heights)
    size = f"0 0 {width} {height}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    top = 0
    for row, row_height in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            lines.append(f'<g transform="translate({column * (_WIDTH + 20)},{top})">')
            lines += _panel(panel)
            lines.append("</g>")
        top += row_height
    return "\n".join([*lines, "</svg>"]) + "\n"


def _panel(panel: Panel) -> Iterator[str]:
    yield f'<text x="4" y="20" font-weight="bold">{escape(panel.title)}</text>'
    greatest = max((max(figures) for _, figures in panel.bars), default=0.0) or 1.0
    scale = (_WIDTH - _LABELS - _NUMBERS) / greatest
    for position, (name, figures) in enumerate(panel.bars):
        y = _HEAD + position * (_BAR + _GAP)
        middle = y + _BAR / 2
        median = statistics.median(figures)
        low, high = (_LABELS + scale * value for value in (min(figures), max(figures)))
        colour = _OWN if name == panel.highlight else _OTHERS
        yield f'<text x="{_LABELS - 6}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="{_LABELS}" y="{y}" width="{scale * median:.1f}" height="{_BAR}" fill="{colour}"/>'
        yield f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="black"/>'
        yield f'<text x="{high + 5:.1f}" y="{middle + 4}">{escape(panel.form(median))}</text>'
