"""Vehicle bodies as tables of polygons in metres: ``SIDES``, ``FRONTS`` and ``REARS`` by body type.

The ground is y = 0; a side view has its front on the left; front and rear views are symmetric about x = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Point = tuple[float, float]
Polygon = tuple[Point, ...]

BODIES = ("sedan", "van", "truck", "bus", "pickup")
VIEWS = ("front", "rear", "left", "right")


def box(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    """An upright rectangle."""
    return ((x0, y0), (x0, y1), (x1, y1), (x1, y0))


def outline(points: str) -> Polygon:
    """Corners written as in an SVG polygon: "x,y x,y ..."."""
    pairs = (point.split(",") for point in points.split())
    return tuple((float(x), float(y)) for x, y in pairs)


def tapered(low: float, y0: float, high: float, y1: float) -> Polygon:
    """A symmetric trapezium: half-width ``low`` at ``y0``, ``high`` at ``y1``."""
    return ((-low, y0), (-high, y1), (high, y1), (low, y0))


def disc(x: float, y: float, radius: float, corners: int = 20) -> Polygon:
    """A regular polygon that passes for a circle."""
    turn = 2 * math.pi / corners
    return tuple((x + radius * math.cos(i * turn), y + radius * math.sin(i * turn)) for i in range(corners))


@dataclass(frozen=True, slots=True)
class Side:
    """A body seen from its left.

    ``wheels`` are (x, radius), ``lamps`` is their height; ``dark`` lies under the paint, ``trim`` over it.
    """

    paint: tuple[Polygon, ...]
    windows: tuple[Polygon, ...]
    wheels: tuple[tuple[float, float], ...]
    seams: tuple[tuple[Point, Point], ...]
    lamps: float
    dark: tuple[Polygon, ...] = ()
    trim: tuple[Polygon, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """A body seen from the front or the rear.

    ``lamps`` are the right half's; ``plate`` and ``mirrors`` are heights, ``track`` is half a width.
    """

    paint: tuple[Polygon, ...]
    windows: tuple[Polygon, ...]
    dark: tuple[Polygon, ...]
    lamps: tuple[Polygon, ...]
    plate: float
    track: float
    seams: tuple[tuple[Point, Point], ...] = ()
    mirrors: float = 0.0


SIDES = {
    "sedan": Side(
        paint=(
            outline("-2.3,0.3 -2.32,0.6 -2.15,0.76 -1.1,0.94 -0.42,1.42 0.7,1.45 1.45,1.03 2.2,0.98 2.3,0.75 2.26,0.3"),
        ),
        windows=(
            ((-0.95, 0.95), (-0.38, 1.34), (0.12, 1.37), (0.12, 0.95)),
            ((0.22, 0.95), (0.22, 1.37), (0.66, 1.37), (1.2, 1.0)),
        ),
        wheels=((-1.42, 0.34), (1.4, 0.34)),
        seams=(((0.17, 0.35), (0.17, 0.95)), ((-0.95, 0.4), (-0.95, 0.95)), ((1.1, 0.6), (1.2, 0.98))),
        lamps=0.64,
    ),
    "van": Side(
        paint=(outline("-2.5,0.3 -2.56,0.75 -2.35,1.02 -1.75,1.2 -1.2,2.0 -0.95,2.1 2.4,2.12 2.52,1.9 2.52,0.3"),),
        windows=(
            ((-1.58, 1.2), (-1.1, 1.92), (-0.55, 1.92), (-0.55, 1.2)),
            box(-0.38, 1.2, 0.85, 1.92),
            box(1.02, 1.2, 2.3, 1.92),
        ),
        wheels=((-1.6, 0.37), (1.55, 0.37)),
        seams=(((-0.46, 0.35), (-0.46, 2.0)), ((0.94, 0.35), (0.94, 2.0)), ((-0.46, 0.95), (2.4, 0.95))),
        lamps=0.82,
    ),
    "truck": Side(
        paint=(
            ((-3.6, 0.5), (-3.66, 1.2), (-3.52, 1.5), (-3.25, 2.45), (-3.0, 2.55), (-2.05, 2.55), (-2.05, 0.5)),
            box(-1.85, 0.85, 3.6, 3.15),
        ),
        windows=(((-3.36, 1.55), (-3.12, 2.32), (-2.4, 2.32), (-2.4, 1.55)),),
        wheels=((-2.8, 0.48), (1.55, 0.48), (2.65, 0.48)),
        seams=(*(((x, 0.9), (x, 3.1)) for x in (-1.2, -0.5, 0.2, 0.9, 1.6, 2.3, 3.0)), ((-2.3, 0.6), (-2.3, 2.4))),
        lamps=0.85,
        dark=(box(-2.1, 0.5, 3.5, 0.85),),
    ),
    "bus": Side(
        paint=(((-4.5, 0.38), (-4.68, 1.1), (-4.2, 3.0), (-4.0, 3.1), (4.5, 3.1), (4.62, 2.9), (4.62, 0.38)),),
        windows=(
            *(box(x, 1.5, x + 1.2, 2.65) for x in (-2.35, -1.0, 0.35, 1.7)),
            ((-4.46, 1.3), (-4.16, 2.75), (-3.75, 2.75), (-3.75, 1.3)),
            box(-3.55, 0.55, -2.6, 2.75),
        ),
        wheels=((-1.9, 0.52), (2.3, 0.52)),
        seams=(((-2.5, 1.2), (4.55, 1.2)), ((-3.08, 0.6), (-3.08, 2.75))),
        lamps=0.8,
        trim=tuple(box(3.3, y, 4.35, y + 0.14) for y in (0.75, 1.0, 1.45, 1.7, 1.95)),
    ),
    "pickup": Side(
        paint=(outline("-2.7,0.5 -2.76,0.98 -2.6,1.16 -1.55,1.24 -1.1,1.92 0.05,1.95 0.2,1.26 2.68,1.26 2.72,0.55"),),
        windows=(
            ((-1.42, 1.26), (-1.02, 1.82), (-0.6, 1.84), (-0.6, 1.26)),
            ((-0.48, 1.26), (-0.48, 1.84), (-0.03, 1.84), (0.06, 1.26)),
        ),
        wheels=((-1.8, 0.48), (1.65, 0.48)),
        seams=(((-0.54, 0.5), (-0.54, 1.26)), ((0.22, 0.55), (0.22, 1.24)), ((0.22, 1.06), (2.66, 1.06))),
        lamps=0.95,
        trim=(box(0.45, 1.24, 2.5, 1.36), ((0.25, 1.24), (0.32, 1.75), (0.44, 1.75), (0.44, 1.24))),
    ),
}

FRONTS = {
    "sedan": End(
        paint=(tapered(0.9, 0.28, 0.92, 0.72), tapered(0.92, 0.7, 0.76, 0.96), tapered(0.8, 0.94, 0.6, 1.45)),
        windows=(tapered(0.7, 0.98, 0.54, 1.37),),
        dark=(tapered(0.42, 0.52, 0.46, 0.66), tapered(0.6, 0.3, 0.62, 0.38)),
        lamps=(((0.52, 0.6), (0.56, 0.74), (0.86, 0.78), (0.86, 0.64)),),
        plate=0.44,
        track=0.72,
        mirrors=1.0,
    ),
    "van": End(
        paint=(tapered(1.0, 0.3, 1.0, 1.1), tapered(1.0, 1.08, 0.86, 2.12)),
        windows=(tapered(0.9, 1.22, 0.78, 1.98),),
        dark=(tapered(0.45, 0.72, 0.5, 0.92), tapered(0.8, 0.32, 0.8, 0.42)),
        lamps=(((0.62, 0.72), (0.66, 1.0), (0.95, 1.06), (0.95, 0.76)),),
        plate=0.53,
        track=0.8,
        mirrors=1.3,
    ),
    "truck": End(
        paint=(box(-1.28, 0.9, 1.28, 3.15), tapered(1.1, 0.45, 1.1, 1.4), tapered(1.1, 1.38, 1.0, 2.55)),
        windows=(tapered(1.0, 1.5, 0.92, 2.25),),
        dark=(*(box(-0.65, y, 0.65, y + 0.1) for y in (0.85, 1.02, 1.19)), box(-1.1, 0.42, 1.1, 0.55)),
        lamps=(box(0.78, 0.64, 1.04, 0.84),),
        plate=0.66,
        track=0.88,
        mirrors=1.75,
        seams=(((-1.1, 2.6), (1.1, 2.6)), ((-1.1, 1.38), (1.1, 1.38))),
    ),
    "bus": End(
        paint=(tapered(1.27, 0.35, 1.27, 2.9), tapered(1.27, 2.88, 1.15, 3.15)),
        windows=(tapered(1.16, 1.15, 1.14, 2.55),),
        dark=(box(-0.95, 2.66, 0.95, 2.98), box(-1.2, 0.36, 1.2, 0.5)),
        lamps=(box(0.72, 0.66, 1.14, 0.86),),
        plate=0.62,
        track=0.95,
        mirrors=2.2,
        seams=(((0.0, 1.15), (0.0, 2.55)), ((-1.2, 1.0), (1.2, 1.0))),
    ),
    "pickup": End(
        paint=(tapered(1.0, 0.55, 1.0, 1.12), tapered(1.0, 1.1, 0.88, 1.26), tapered(0.86, 1.22, 0.68, 1.83)),
        windows=(tapered(0.77, 1.27, 0.62, 1.74),),
        dark=(box(-0.58, 0.72, 0.58, 1.08), box(-1.02, 0.48, 1.02, 0.62)),
        lamps=(box(0.66, 0.82, 0.96, 1.08),),
        plate=0.55,
        track=0.78,
        mirrors=1.35,
        seams=(((-0.58, 0.9), (0.58, 0.9)),),
    ),
}

REARS = {
    "sedan": End(
        paint=(tapered(0.9, 0.28, 0.92, 0.75), tapered(0.92, 0.73, 0.8, 1.02), tapered(0.78, 1.0, 0.6, 1.45)),
        windows=(tapered(0.66, 1.08, 0.53, 1.38),),
        dark=(tapered(0.7, 0.28, 0.72, 0.38),),
        lamps=(((0.5, 0.76), (0.5, 0.92), (0.86, 0.94), (0.9, 0.72)),),
        plate=0.66,
        track=0.72,
        seams=(((-0.8, 0.56), (0.8, 0.56)), ((-0.76, 1.0), (0.76, 1.0))),
    ),
    "van": End(
        paint=(tapered(1.0, 0.3, 1.0, 1.3), tapered(1.0, 1.28, 0.9, 2.12)),
        windows=(tapered(0.82, 1.25, 0.76, 1.92),),
        dark=(box(-0.98, 0.3, 0.98, 0.45), box(-0.035, 0.5, 0.035, 2.0)),
        lamps=(box(0.84, 0.7, 0.97, 1.45),),
        plate=0.78,
        track=0.8,
        seams=(((-0.8, 1.1), (0.8, 1.1)),),
    ),
    "truck": End(
        paint=(box(-1.28, 0.85, 1.28, 3.15),),
        windows=(),
        dark=(box(-1.2, 0.4, 1.2, 0.52), box(-1.25, 0.68, 1.25, 0.86), box(-0.03, 0.95, 0.03, 3.05)),
        lamps=(box(0.8, 0.54, 1.2, 0.68),),
        plate=0.6,
        track=0.9,
        seams=(*(((x, 0.95), (x, 3.05)) for x in (-0.95, -0.4, 0.4, 0.95)), ((-1.2, 3.05), (1.2, 3.05))),
    ),
    "bus": End(
        paint=(tapered(1.27, 0.35, 1.27, 2.9), tapered(1.27, 2.88, 1.15, 3.15)),
        windows=(tapered(0.95, 1.95, 0.9, 2.7),),
        dark=(*(box(-0.75, y, 0.75, y + 0.09) for y in (0.85, 1.02, 1.19, 1.36)), box(-1.2, 0.35, 1.2, 0.5)),
        lamps=(box(0.98, 0.8, 1.18, 1.6),),
        plate=0.63,
        track=0.95,
        seams=(((-1.2, 1.75), (1.2, 1.75)),),
    ),
    "pickup": End(
        paint=(box(-1.0, 0.6, 1.0, 1.24), tapered(0.84, 1.22, 0.68, 1.83)),
        windows=(tapered(0.72, 1.36, 0.6, 1.74),),
        dark=(box(-1.02, 0.46, 1.02, 0.62), box(-0.14, 1.04, 0.14, 1.12)),
        lamps=(box(0.82, 0.72, 0.97, 1.16),),
        plate=0.54,
        track=0.78,
        seams=(((-0.76, 0.7), (-0.76, 1.2)), ((0.76, 0.7), (0.76, 1.2)), ((-0.76, 0.94), (0.76, 0.94))),
    ),
}


def half_extent(body: str, view: str) -> tuple[float, float]:
    """Half the width and the full height of a body in metres, as drawn."""
    shape = {"front": FRONTS, "rear": REARS}.get(view, SIDES)[body]
    points = [point for polygon in shape.paint for point in polygon]
    return max(abs(x) for x, _ in points), max(y for _, y in points)
