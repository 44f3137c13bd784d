"""The picture of a bench: panels of lines or bars in one PNG, drawn with matplotlib, which only this needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

COLUMNS = 3


@dataclass(frozen=True)
class Panel:
    """One diagram: `lines` over numbers, or `bars` with names."""

    title: str
    y_label: str
    x_label: str = ""
    lines: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    bars: Mapping[str, float] = field(default_factory=dict)
    log_x: bool = False


def check_matplotlib() -> None:
    """Raise ImportError, which says what to do, where nothing can be drawn."""
    if find_spec("matplotlib") is None:
        raise ImportError("a picture needs matplotlib: pip install 'zqserve[bench]', or pip install matplotlib")


def draw(path: Path, title: str, panels: Sequence[Panel]) -> None:
    """Draw the panels side by side into a PNG."""
    check_matplotlib()
    from matplotlib.figure import Figure

    columns = min(COLUMNS, max(1, len(panels)))
    rows = -(-len(panels) // columns) or 1
    figure = Figure(figsize=(5.2 * columns, 3.8 * rows + 0.4), layout="constrained")
    figure.suptitle(title)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, panel in zip(axes, panels, strict=False):
        _draw_panel(axis, panel)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.savefig(path, format="png", dpi=110)


def _draw_panel(axis: Any, panel: Panel) -> None:
    axis.set_title(panel.title)
    axis.set_ylabel(panel.y_label)
    axis.set_xlabel(panel.x_label)
    for name, points in panel.lines.items():
        axis.plot(*zip(*points, strict=True), marker="o", label=name)
    if panel.lines:
        axis.grid(alpha=0.3)
        if panel.log_x:
            axis.set_xscale("log", base=2)
        if len(panel.lines) > 1:
            axis.legend()
    if panel.bars:
        axis.bar(range(len(panel.bars)), list(panel.bars.values()))
        axis.set_xticks(range(len(panel.bars)), list(panel.bars), rotation=20, ha="right")
    axis.set_ylim(bottom=0)
