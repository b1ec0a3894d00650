"""Bar charts as SVG, one file for each workload: instructions per I/O by target."""

import os
from xml.sax.saxutils import escape

BAR, GAP, LEFT, WIDTH, RIGHT, TOP = 22, 8, 90, 480, 90, 40
COLOURS = {"raw": "#888888", "linear": "#4c78a8", "sv": "#e45756"}
OTHERS = "#9ecae9"


def text(x, y, words, anchor="start", size=13):
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'


def bars(title, values):
    """An SVG of {name: value}."""
    height = TOP + len(values) * (BAR + GAP) + GAP
    width = LEFT + WIDTH + RIGHT
    most = max(values.values())
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">',
             f'<rect width="{width}" height="{height}" fill="white"/>', text(LEFT, 24, title, size=15)]
    for i, (name, value) in enumerate(values.items()):
        y, length = TOP + i * (BAR + GAP), WIDTH * value / most
        parts += [text(LEFT - 8, y + 16, name, "end"),
                  f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{COLOURS.get(name, OTHERS)}"/>',
                  text(LEFT + length + 6, y + 16, f"{value:,.0f}" if value >= 100 else f"{value:.2f}")]
    return "\n".join([*parts, "</svg>\n"])


def draw(results, directory):
    for workload in results.named("workload"):
        values = {t: results.get(t, workload) for t in results.named("target") if results.has(t, workload)}
        with open(os.path.join(directory, workload + ".svg"), "w", encoding="utf-8") as f:
            f.write(bars(f"{workload}: instructions per I/O", values))
