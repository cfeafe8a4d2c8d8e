"""The picture of the house: the floors of docs/architecture.md, which the tests hold, and every import between them."""

import ast
import html
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = {"floors": (ROOT / "src/posenc", "posenc."), "lab-floors": (ROOT / "src/posenc/lab", "posenc.lab.")}
WIDTH, STEP, HEIGHT, GAP = 760, 58, 26, 10
"""Pixels: of the picture, from floor to floor, of a box, between boxes."""


def floors(name: str) -> list[list[str]]:
    """The folders of each floor, from the top down."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return [line.split() for line in text.split(f"```{name}\n")[1].split("```")[0].strip().splitlines()]


def arrows(name: str) -> set[tuple[str, str]]:
    """Which folder imports from which, inside functions too."""
    folder, package = FOLDERS[name]
    rooms = {room for floor in floors(name) for room in floor}
    found = set()
    for path in folder.rglob("*.py"):
        home = path.relative_to(folder).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            for target in names:
                room = target.removeprefix(package).split(".")[0]
                if target.startswith(package) and home != room and {home, room} <= rooms:
                    found.add((home, room))
    return found


def picture(name: str) -> str:
    """The floors as an SVG: boxes from the top floor down, and a line from each folder to those that it imports."""
    shown, places = floors(name), {}
    for level, floor in enumerate(shown):
        widths = [12 + 7.2 * len(room) for room in floor]
        x = (WIDTH - sum(widths) - GAP * (len(floor) - 1)) / 2
        for room, width in zip(floor, widths, strict=True):
            places[room] = (x, 4 + level * STEP, width)
            x += width + GAP
    lines, boxes = [], []
    for home, room in sorted(arrows(name)):
        (x1, y1, w1), (x2, y2, w2) = places[home], places[room]
        lines.append(f'<line x1="{x1 + w1 / 2:.0f}" y1="{y1 + HEIGHT}" x2="{x2 + w2 / 2:.0f}" y2="{y2}"/>')
    for room, (x, y, width) in places.items():
        boxes.append(f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{HEIGHT}" rx="4"/>')
        boxes.append(f'<text x="{x + width / 2:.0f}" y="{y + 17}">{html.escape(room)}</text>')
    height = (len(shown) - 1) * STEP + HEIGHT + 8
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" style="width:100%;height:auto" '
        'aria-label="The floors, each of which imports from lower ones">'
        f'<g stroke="currentColor" opacity="0.28">{"".join(lines)}</g>'
        '<g fill="var(--md-default-bg-color,#fff)" stroke="currentColor" font-size="12" text-anchor="middle">'
        + "".join(boxes).replace("<text ", '<text fill="currentColor" stroke="none" ')
        + "</g></svg>"
    )
