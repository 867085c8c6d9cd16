"""Draws the site's pictures: python docs/pictures/draw.py.

They are 512 units wide, so that 16-unit text is readable on a phone. Each file has colours of its own for light
and dark, as the README shows it; on the site docs/_static/dmasync.css follows the reader's choice.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
WIDTH = 512

LIGHT = {
    "ink": "#1f2328", "soft": "#59636e", "paper": "#f6f8fa", "line": "#d1d9e0",
    "cpu": "#0969da", "dev": "#9a6700", "good": "#1a7f37", "bad": "#cf222e",
}  # fmt: skip
DARK = {
    "ink": "#e6edf3", "soft": "#9198a1", "paper": "#1c2128", "line": "#3d444d",
    "cpu": "#58a6ff", "dev": "#e3b341", "good": "#56d364", "bad": "#ff7b72",
}  # fmt: skip


def variables(colours: dict[str, str]) -> str:
    """*colours* as CSS variables."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


STYLE = (
    f"""\
<style>
svg.drawn {{ {variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ svg.drawn {{ {variables(DARK)} }} }}
svg.drawn text {{ font: 16px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink); }}
svg.drawn .small {{ font-size: 14px; fill: var(--soft); }}
svg.drawn .strong {{ font-weight: 600; }}
svg.drawn .box {{ fill: var(--paper); stroke: var(--line); stroke-width: 1.5; }}
svg.drawn .line {{ stroke: var(--line); stroke-width: 1.5; fill: none; }}
svg.drawn .arrow {{ stroke: var(--soft); stroke-width: 2; fill: none; }}
svg.drawn .thick {{ stroke-width: 2.5; }}
"""
    + "".join(
        f"svg.drawn .{name} {{ stroke: var(--{name}); }}\n"
        f"svg.drawn text.{name} {{ stroke: none; fill: var(--{name}); }}\n"
        for name in ("cpu", "dev", "good", "bad")
    )
    + "</style>"
)


class Picture:
    """Collects shapes; coordinates are in units, from the upper left."""

    def __init__(self, title: str, description: str, height: int) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="drawn" viewBox="0 0 {WIDTH} {height}" role="img"'
            f' aria-label="{title}">',
            f"<title>{title}</title>",
            f"<desc>{description}</desc>",
            STYLE,
        ]

    def text(self, x: int, y: int, words: str, classes: str = "", anchor: str = "start") -> None:
        """One line of *words* whose baseline is at *y*."""
        self._parts.append(f'<text x="{x}" y="{y}" class="{classes}" text-anchor="{anchor}">{words}</text>')

    def box(self, x: int, y: int, width: int, height: int, classes: str = "") -> None:
        """A box with round corners."""
        self._parts.append(f'<rect class="box {classes}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>')

    def line(self, x1: int, y1: int, x2: int, y2: int, classes: str = "line") -> None:
        """A straight line."""
        self._parts.append(f'<line class="{classes}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')

    def down(self, x: int, y: int) -> None:
        """A short arrow from *y* downwards."""
        self._parts.append(f'<path class="arrow" d="M{x} {y} v18 m-5 -6 l5 6 l5 -6"/>')

    def save(self, name: str) -> None:
        """Write the file *name* beside this program."""
        (HERE / name).write_text("\n".join([*self._parts, "</svg>"]) + "\n", encoding="utf-8")


def window() -> None:
    """The life of a window."""
    picture = Picture(
        "The life of a window",
        "A device writes a frame. START makes the CPU's cache drop old bytes, the CPU reads, END writes back what it "
        "wrote, and the device writes the next frame. Without START the CPU reads old bytes.",
        344,
    )
    picture.text(4, 64, "device", "dev strong")
    picture.text(4, 130, "CPU", "cpu strong")
    picture.text(4, 178, "cache", "cpu strong")
    for x, frame in ((70, 1), (384, 2)):
        picture.box(x, 38, 124, 42, "dev")
        picture.text(x + 62, 64, f"writes frame {frame}", "", "middle")
    for x, step in ((212, "START"), (366, "END")):
        picture.line(x, 26, x, 208, "good thick")
        picture.text(x, 18, step, "good strong", "middle")
    picture.box(222, 104, 134, 42, "cpu")
    picture.text(289, 130, "reads frame 1", "", "middle")
    picture.text(70, 178, "has old bytes", "small")
    picture.text(222, 178, "drops old bytes,", "small")
    picture.text(222, 197, "fetches frame 1", "small")
    picture.text(376, 178, "writes back what", "small")
    picture.text(376, 197, "the CPU wrote", "small")
    picture.text(289, 228, "the window", "small", "middle")
    picture.line(4, 246, 508, 246)
    picture.text(4, 276, "The same without START and END", "strong")
    picture.text(4, 318, "CPU", "cpu strong")
    picture.box(222, 292, 134, 42, "bad")
    picture.text(289, 318, "reads old bytes", "bad", "middle")
    picture.text(376, 318, "and no error", "small")
    picture.save("window.svg")


def layers() -> None:
    """The layers of a backend."""
    picture = Picture(
        "The layers of a backend",
        "A program calls a recorder, that calls a fault injector, and that calls the fake kernel or the real one.",
        404,
    )
    rows = (
        ("your program and dmasync", "every call to the kernel goes through one object: a backend", "cpu"),
        ("Recorder", "writes down each call, each START and END: the journal", ""),
        ("FaultInjector", "EINTR and EAGAIN storms, hard errors, delays, by a plan", "bad"),
    )
    for number, (title, note, colour) in enumerate(rows):
        y = 8 + number * 84
        picture.box(28, y, 456, 60, colour)
        picture.text(44, y + 26, title, "strong")
        picture.text(44, y + 47, note, "small")
        picture.down(256, y + 63)
    for x, title, first, second, colour in (
        (28, "FakeKernel", "answers as Linux 6.12 does,", "on any machine", "dev"),
        (264, "LinuxBackend", "the real kernel, on hardware", "or in a virtual machine", "good"),
    ):
        picture.box(x, 260, 220, 82, colour)
        picture.text(x + 14, 286, title, "strong")
        picture.text(x + 14, 308, first, "small")
        picture.text(x + 14, 327, second, "small")
    picture.text(256, 370, "FakeBackend is Recorder, FaultInjector and FakeKernel, ready made.", "small", "middle")
    picture.text(256, 391, "The Sanitizer reads the journal, whichever kernel it came from.", "small", "middle")
    picture.save("layers.svg")


def clocks() -> None:
    """The two clocks."""
    picture = Picture(
        "The two clocks",
        "On the wall clock the same operation takes another time in each round; on the exact clock it is the same "
        "number of instructions in each boot.",
        372,
    )
    picture.text(4, 22, "wall clock: nanoseconds of one START", "strong")
    picture.line(4, 118, 508, 118)
    heights = (10, 18, 30, 44, 58, 66, 70, 68, 62, 55, 46, 38, 30, 24, 18, 13, 9, 6, 6, 4)
    places = (48, 62, 72, 82, 89, 95, 100, 105, 110, 116, 122, 130, 139, 151, 166, 192, 230, 290, 386, 470)
    for x, height in zip(places, heights, strict=True):
        picture.line(x, 118, x, 118 - height, "dev thick")
    picture.text(4, 140, "Another answer every time. Differences are judged with", "small")
    picture.text(4, 159, "statistics, over many runs taken in turn.", "small")
    picture.text(4, 210, "exact clock: instructions of one START", "strong")
    picture.line(4, 306, 508, 306)
    picture.line(100, 306, 100, 230, "good thick")
    picture.text(110, 244, "2,008 in every round and every boot", "good")
    picture.line(282, 306, 282, 262, "bad thick")
    picture.text(292, 276, "2,020: somebody added 12", "bad")
    picture.text(4, 328, "The same integer each time. Integers are compared: one run", "small")
    picture.text(4, 347, "a side is enough. It counts work, not time: no caches, no", "small")
    picture.text(4, 366, "memory bandwidth.", "small")
    picture.save("clocks.svg")


if __name__ == "__main__":
    window()
    layers()
    clocks()
