"""The sheet a map is printed on: title, the map at one scale, a scale bar, and a side panel for the legend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image, ImageFont


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours of one sheet."""

    background: str
    map_background: str
    text: str
    muted: str
    rule: str


DARK = Theme(background="#0f1116", map_background="#000004", text="#f2f3f5", muted="#9aa1ad", rule="#2a2f3a")
LIGHT = Theme(background="#ffffff", map_background="#fafbfc", text="#16181d", muted="#5d6470", rule="#d8dce2")


@dataclass(frozen=True, kw_only=True)
class Key:
    """One line of a legend."""

    colour: str
    label: str
    value: str
    badge: str = ""
    note: str = ""


def font(px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans at ``px`` pixels, from the copy that matplotlib carries."""
    import matplotlib as mpl
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(f"{mpl.get_data_path()}/fonts/ttf/{name}", px, layout_engine=ImageFont.Layout.BASIC)


def elide(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """``text`` cut in the middle with an ellipsis so that it is at most ``width`` pixels wide in ``face``."""
    text = "".join(c if c.isprintable() else "�" for c in text)
    if face.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        keep = (low + high + 1) // 2
        low, high = (keep, high) if face.getlength(_cut(text, keep)) <= width else (low, keep - 1)
    return _cut(text, low)


def _cut(text: str, keep: int) -> str:
    tail = keep // 2
    return f"{text[: keep - tail]}…{text[len(text) - tail :] if tail else ''}"


class Canvas:
    """A sheet being drawn. ``size`` is the map's shorter side in pixels; everything else scales with it."""

    def __init__(
        self,
        extent: tuple[float, float, float, float],
        size: int,
        theme: Theme,
        title: str,
        subtitle: str,
        *,
        panel: float,
    ) -> None:
        from PIL import Image, ImageDraw

        self.theme, self.extent, self.unit = theme, extent, size / 2000
        width, height = max(extent[1] - extent[0], 1e-12), max(extent[3] - extent[2], 1e-12)
        stretch = min(2.0, max(width, height) / min(width, height))
        self.map_size = (round(size * stretch), size) if width >= height else (size, round(size * stretch))
        self.pad, self.panel_width = self.px(64), self.px(panel)
        self.top = self.px(190)
        sheet = (
            self.map_size[0] + self.panel_width + 3 * self.pad,
            self.map_size[1] + self.top + self.pad + self.px(70),
        )
        self.image = Image.new("RGB", sheet, theme.background)
        self.draw = ImageDraw.Draw(self.image)
        self.panel_x, self.panel_y = self.map_size[0] + 2 * self.pad, self.top
        self._labels: list[tuple[str, float, float, str]] = []
        right, bottom = self.pad + self.map_size[0], self.top + self.map_size[1]
        self.draw.rectangle((self.pad, self.top, right - 1, bottom - 1), fill=theme.map_background)
        room = sheet[0] - 2 * self.pad
        self.text(self.pad, self.px(58), elide(title, font(self.px(58), bold=True), room), 58, bold=True)
        self.text(self.pad, self.px(130), elide(subtitle, font(self.px(34)), room), 34, colour=theme.muted)

    def px(self, units: float) -> int:
        """Units of a 2000-pixel sheet in this sheet's pixels."""
        return max(1, round(units * self.unit))

    def text(
        self, x: float, y: float, text: str, px: int, *, bold: bool = False, colour: str = "", at: str = "la"
    ) -> None:
        """Draw ``text`` at its anchor ``at`` (Pillow's two letters)."""
        self.draw.text((x, y), text, font=font(self.px(px), bold=bold), fill=colour or self.theme.text, anchor=at)

    def paste(self, layer: Image.Image) -> None:
        """Lay an RGBA layer over the map, resampled to the map's size."""
        from PIL import Image

        # Premultiplied alpha, so that empty cells do not bleed their colour into the points' rims.
        resized = layer.convert("RGBa").resize(self.map_size, Image.Resampling.BICUBIC).convert("RGBA")
        self.image.paste(resized, (self.pad, self.top), resized)

    def label(self, text: str, x: float, y: float, colour: str) -> None:
        """Write a cluster's id at (x, y), fractions of the map from its lower left corner; drawn by ``finish``."""
        self._labels.append((text, x, y, colour))

    def finish(self) -> Image.Image:
        """The sheet with labels, frame and scale bar."""
        placed: list[tuple[float, float]] = []
        for text, fx, fy, colour in self._labels:
            x, y = self.pad + fx * self.map_size[0], self.top + (1 - fy) * self.map_size[1]
            if any(abs(x - a) < self.px(46) and abs(y - b) < self.px(40) for a, b in placed):
                continue
            placed.append((x, y))
            self._pill(text, x, y, colour)
        right, bottom = self.pad + self.map_size[0], self.top + self.map_size[1]
        self.draw.rectangle((self.pad, self.top, right - 1, bottom - 1), outline=self.theme.rule, width=self.px(2))
        self._scale_bar(bottom + self.px(26))
        return self.image

    def _pill(self, text: str, x: float, y: float, colour: str) -> None:
        face = font(self.px(28), bold=True)
        tall = self.px(21)
        half = max(tall, round(face.getlength(text) / 2) + self.px(12))
        x, y = round(x), round(y)
        box = (x - half, y - tall, x + half, y + tall)
        self.draw.rounded_rectangle(box, radius=tall, fill="#0b0d12", outline=colour, width=self.px(3))
        self.draw.text((x, y), text, font=face, fill="#ffffff", anchor="mm")

    def _scale_bar(self, y: float) -> None:
        width = self.extent[1] - self.extent[0]
        length = nice_length(width / 5)
        pixels = length / width * self.map_size[0]
        x, tick = self.pad, self.px(9)
        self.draw.line((x, y, x + pixels, y), fill=self.theme.muted, width=self.px(4))
        for end in (x, x + pixels):
            self.draw.line((end, y - tick, end, y + tick), fill=self.theme.muted, width=self.px(4))
        note = f"{length:g} map units. Near means alike; the directions themselves have no meaning."
        self.text(x + pixels + self.px(22), y, note, 26, colour=self.theme.muted, at="lm")


def nice_length(value: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is at most ``value``."""
    power = 10.0 ** np.floor(np.log10(max(value, 1e-300)))
    return float(max(m * power for m in (1, 2, 5) if m * power <= value * (1 + 1e-9)))


def legend(canvas: Canvas, heading: str, keys: Sequence[Key], rest: int = 0) -> None:
    """Lines of swatch, label and value down the side panel; ``rest`` more entries are only counted."""
    x, y, width = canvas.panel_x, canvas.panel_y, canvas.panel_width
    canvas.text(x, y, heading, 36, bold=True)
    y += canvas.px(72)
    badge = max((font(canvas.px(28), bold=True).getlength(key.badge) for key in keys), default=0)
    indent = canvas.px(46) + (badge + canvas.px(16) if badge else 0)
    step = min(canvas.px(60), (canvas.map_size[1] - canvas.px(140)) // max(len(keys) + bool(rest), 1))
    for key in keys:
        mid = y + canvas.px(18)
        box = (x, mid - canvas.px(15), x + canvas.px(30), mid + canvas.px(15))
        canvas.draw.rounded_rectangle(box, radius=canvas.px(7), fill=key.colour)
        if badge:
            canvas.text(x + canvas.px(46) + badge, mid, key.badge, 28, bold=True, at="rm")
        room = width - indent - canvas.px(140)
        canvas.text(x + indent, mid, elide(key.label, font(canvas.px(30)), room), 30, at="lm")
        canvas.text(x + width, mid, key.value, 30, colour=canvas.theme.muted, at="rm")
        if key.note:
            canvas.text(x + indent, mid + canvas.px(42), key.note, 26, colour=canvas.theme.muted, at="lm")
            y += canvas.px(54)
        y += step
    if rest:
        canvas.text(x, y + canvas.px(18), f"and {rest:,} smaller clusters", 28, colour=canvas.theme.muted, at="lm")


def colour_bar(canvas: Canvas, heading: str, stops: Sequence[str], ticks: Sequence[tuple[float, str]]) -> None:
    """A vertical bar of ``stops`` in the side panel with ``ticks`` (position 0..1 from the bottom, text)."""
    from PIL import ImageColor

    x, y, width = canvas.panel_x, canvas.panel_y, canvas.px(56)
    canvas.text(x, y, heading, 36, bold=True)
    canvas.text(x, y + canvas.px(54), "rows per 1% × 1%", 26, colour=canvas.theme.muted)
    canvas.text(x, y + canvas.px(90), "of the map; each colour", 26, colour=canvas.theme.muted)
    canvas.text(x, y + canvas.px(126), "covers an equal area", 26, colour=canvas.theme.muted)
    top, height = y + canvas.px(196), canvas.px(900)
    ramp = np.asarray([ImageColor.getrgb(stop) for stop in stops], dtype=np.float64)
    for row in range(height):
        at = (1 - row / max(height - 1, 1)) * (len(ramp) - 1)
        colour = tuple(round(float(np.interp(at, np.arange(len(ramp)), ramp[:, c]))) for c in range(3))
        canvas.draw.line((x, top + row, x + width, top + row), fill=colour)
    for where, text in ticks:
        at = top + (1 - where) * (height - 1)
        canvas.draw.line((x + width, at, x + width + canvas.px(14), at), fill=canvas.theme.muted, width=canvas.px(3))
        canvas.text(x + width + canvas.px(28), at, text, 30, at="lm")
