"""Draw a vehicle in any paint, place, size and light: ``draw_vehicle``, ``repainted``, ``PAINTS``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from streamclust.demo.bodies import FRONTS, REARS, SIDES, box, disc

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from streamclust.demo.bodies import End, Point, Polygon, Side

Colour = tuple[int, int, int]

PAINTS: dict[str, Colour] = {
    "white": (240, 240, 236),
    "black": (30, 30, 36),
    "grey": (112, 114, 122),
    "red": (204, 30, 34),
    "blue": (30, 76, 196),
    "green": (28, 136, 62),
    "yellow": (246, 196, 24),
}
GLASS, RUBBER, CHROME, DARK = (40, 54, 68), (24, 24, 27), (190, 194, 200), (46, 47, 52)
HEADLAMP, TAILLAMP, AMBER, PLATE = (255, 250, 222), (214, 22, 26), (255, 150, 30), (236, 232, 214)


class Pen:
    """Draws polygons given in metres at ``place`` = (x, ground y, pixels per metre, tilt); ``light`` scales colours."""

    def __init__(
        self, image: Image.Image, place: tuple[float, float, float, float], light: float, *, mirror: bool
    ) -> None:
        self._image, self._draw, self._light = image, ImageDraw.Draw(image), light
        self._x, self._y, scale, tilt = place
        self._cos, self._sin = scale * math.cos(tilt), scale * math.sin(tilt)
        self._mirror = -1 if mirror else 1

    def pixels(self, points: Iterable[Point]) -> list[Point]:
        """Metres to pixels."""
        c, s, m = self._cos, self._sin, self._mirror
        return [(self._x + c * m * x + s * y, self._y + s * m * x - c * y) for x, y in points]

    def lit(self, colour: Colour) -> Colour:
        r, g, b = (min(255, int(c * self._light)) for c in colour)
        return r, g, b

    def fill(self, polygon: Polygon, colour: Colour, *, lamp: bool = False) -> None:
        """One flat polygon; lamps shine whatever the light."""
        self._draw.polygon(self.pixels(polygon), fill=colour if lamp else self.lit(colour))

    def line(self, ends: Iterable[Point], colour: Colour, width: int = 2) -> None:
        self._draw.line(self.pixels(ends), fill=self.lit(colour), width=width)

    def paint(self, polygons: tuple[Polygon, ...], colour: Colour) -> None:
        """Painted sheet metal: brighter towards the roof as under a sky, with a thin dark outline."""
        mask = Image.new("L", self._image.size)
        pen = ImageDraw.Draw(mask)
        corners = [self.pixels(polygon) for polygon in polygons]
        for points in corners:
            pen.polygon(points, fill=255)
        left, top, right, bottom = mask.getbbox() or (0, 0, 1, 1)
        size = (right - left, bottom - top)
        shade = Image.linear_gradient("L").resize(size)
        low = Image.new("RGB", size, self.lit(mixed(colour, (0, 0, 0), 0.24)))
        high = Image.new("RGB", size, self.lit(mixed(colour, (255, 255, 255), 0.13)))
        self._image.paste(Image.composite(low, high, shade), (left, top), mask.crop((left, top, right, bottom)))
        for points in corners:
            self._draw.line([*points, points[0]], fill=self.lit(mixed(colour, (0, 0, 0), 0.55)), width=2)

    def glass(self, polygon: Polygon) -> None:
        """A window with a reflection over its lower left half."""
        self.fill(polygon, GLASS)
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = polygon
        streak = (
            (x0 * 0.8 + x3 * 0.2, y0),
            (x1 * 0.7 + x2 * 0.3, y1),
            (x1 * 0.45 + x2 * 0.55, y2),
            (x0 * 0.55 + x3 * 0.45, y3),
        )
        self.fill(streak, mixed(GLASS, (200, 220, 240), 0.32))


def mixed(colour: Colour, other: Colour, share: float) -> Colour:
    """``share`` of ``other`` in ``colour``."""
    r, g, b = (round(a + share * (z - a)) for a, z in zip(colour, other, strict=True))
    return r, g, b


def draw_vehicle(
    image: Image.Image, body: str, view: str, colour: Colour, place: tuple[float, float, float, float], light: float
) -> None:
    """Draw one vehicle into ``image`` (RGB, in place) at ``place`` = (x, ground y, pixels per metre, tilt)."""
    pen = Pen(image, place, light, mirror=view == "right")
    if view in {"left", "right"}:
        draw_side(pen, SIDES[body], colour)
    else:
        draw_end(
            pen, (FRONTS if view == "front" else REARS)[body], colour, lamp=HEADLAMP if view == "front" else TAILLAMP
        )


def draw_side(pen: Pen, shape: Side, colour: Colour) -> None:
    ends = [x for polygon in shape.paint for x, _ in polygon]
    first, last = min(ends), max(ends)
    for part in shape.dark:
        pen.fill(part, DARK)
    draw_body(pen, shape, colour)
    for part in shape.trim:
        pen.fill(part, DARK)
    pen.fill(box(first + 0.08, shape.lamps - 0.1, first + 0.36, shape.lamps + 0.1), HEADLAMP, lamp=True)
    pen.fill(box(last - 0.2, shape.lamps - 0.14, last - 0.04, shape.lamps + 0.16), TAILLAMP, lamp=True)
    for x, radius in shape.wheels:
        pen.fill(disc(x, radius, radius * 1.2), mixed(colour, (0, 0, 0), 0.7))
        pen.fill(disc(x, radius, radius), RUBBER)
        pen.fill(disc(x, radius, radius * 0.58), CHROME)
        pen.fill(disc(x, radius, radius * 0.2), DARK)


def draw_end(pen: Pen, shape: End, colour: Colour, *, lamp: Colour) -> None:
    for sign in (-1, 1):
        pen.fill(box(sign * shape.track - 0.16, 0, sign * shape.track + 0.16, 0.6), RUBBER)
    draw_body(pen, shape, colour)
    for part in shape.dark:
        pen.fill(part, DARK)
    for part in shape.lamps:
        for sign in (-1, 1):
            pen.fill(tuple((sign * x, y) for x, y in part), lamp, lamp=True)
    pen.fill(box(-0.27, shape.plate - 0.07, 0.27, shape.plate + 0.07), PLATE)
    pen.line(((-0.2, shape.plate), (0.2, shape.plate)), DARK, 1)
    if shape.mirrors:
        edge = max(abs(x) for polygon in shape.paint for x, _ in polygon)
        for sign in (-1, 1):
            pen.fill(disc(sign * (edge + 0.08), shape.mirrors, 0.12, 8), mixed(colour, (0, 0, 0), 0.35))


def draw_body(pen: Pen, shape: Side | End, colour: Colour) -> None:
    pen.paint(shape.paint, colour)
    for window in shape.windows:
        pen.glass(window)
    for seam in shape.seams:
        pen.line(seam, mixed(colour, (0, 0, 0), 0.42), 1)


def repainted(name: str, rng: np.random.Generator) -> Colour:
    """A paint as one maker mixes it: the named colour, a little off."""
    r, g, b = (int(min(255, max(0, c + d))) for c, d in zip(PAINTS[name], rng.normal(0, 7, 3), strict=True))
    return r, g, b
