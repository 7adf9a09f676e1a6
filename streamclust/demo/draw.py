"""Draw one picture of a road camera: a street, its light, perhaps a vehicle, perhaps something wrong.

``Scene`` says what is to be seen, ``draw_picture`` draws it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from streamclust.demo.bodies import half_extent
from streamclust.demo.vehicles import Colour, draw_vehicle, mixed, repainted

WIDTH, HEIGHT = 160, 120
ZOOM = 2  # everything is drawn twice as large and halved, which smooths the edges
W, H, MARGIN = WIDTH * ZOOM, HEIGHT * ZOOM, 16


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows. ``sort`` is "vehicle" or one of ``FAILURES``; ``hour`` is the time of day, 0 to 24."""

    camera: int
    hour: float
    sort: str
    body: str = ""
    view: str = ""
    colour: str = ""


@dataclass(frozen=True, slots=True)
class Street:
    """What a camera always sees: horizon and lane line as shares of the picture, colours, and what stands behind."""

    horizon: float
    asphalt: Colour
    verge: Colour
    line: float
    behind: str


STREETS = (
    Street(0.30, (112, 112, 116), (128, 122, 112), 0.10, "houses"),
    Street(0.26, (98, 98, 104), (92, 120, 66), 0.90, "trees"),
    Street(0.34, (126, 122, 118), (150, 140, 96), 0.06, "hills"),
    Street(0.22, (104, 106, 110), (140, 140, 142), 0.94, "wall"),
    Street(0.32, (116, 116, 114), (98, 126, 84), 0.12, "hills"),
    Street(0.28, (108, 104, 104), (118, 116, 112), 0.88, "houses"),
)


def draw_picture(scene: Scene, rng: np.random.Generator, sensor: np.random.Generator) -> Image.Image:
    """One RGB picture, 160 x 120: ``rng`` decides what is drawn, ``sensor`` only blur and noise."""
    light, tint = daylight(scene.hour)
    image = FAILURES.get(scene.sort, with_vehicle)(scene, light, tint, rng)
    return developed(image, noise=3.0 + 5.0 * (1 - light), sensor=sensor)


def daylight(hour: float) -> tuple[float, Colour]:
    """How bright it is (0.4 at night to 1 by day) and the colour that the light gives to things."""
    height = float(np.clip((np.cos((hour - 13) / 24 * 2 * np.pi) + 0.45) / 0.6, 0, 1))
    dusk = 4 * height * (1 - height)
    night, day, low_sun = np.array([150, 170, 225]), np.array([255, 255, 255]), np.array([255, 205, 160])
    r, g, b = (night + height * (day - night)) * (1 - 0.35 * dusk) + 0.35 * dusk * low_sun
    return 0.4 + 0.6 * height, (int(r), int(g), int(b))


def street_view(scene: Scene, light: float, tint: Colour, rng: np.random.Generator) -> Image.Image:
    """The camera's empty street in this light, the camera swaying a little in the wind."""
    x, y = (int(v) for v in rng.integers(0, 2 * MARGIN, 2))
    image = empty_street(scene.camera).crop((x, y, x + W, y + H))
    gains = [light * c / 255 * g for c, g in zip(tint, rng.normal(1, 0.03, 3), strict=True)]
    image = image.point([min(255, int(v * gain)) for gain in gains for v in range(256)])
    if light < 0.6:
        street_lamps(image, rng)
    return image


@lru_cache(maxsize=len(STREETS))
def empty_street(camera: int) -> Image.Image:
    """A camera's street by day, with a margin to sway in; never changed by a caller."""
    street, rng = STREETS[camera], np.random.default_rng([77, camera])
    width, height = W + 2 * MARGIN, H + 2 * MARGIN
    horizon = int(height * street.horizon)
    image = Image.new("RGB", (width, height), street.asphalt)
    pen = ImageDraw.Draw(image)
    for y in range(horizon):
        pen.line([(0, y), (width, y)], fill=mixed((150, 188, 232), (226, 234, 240), y / horizon))
    backdrop(pen, street, horizon, width, rng)
    pen.rectangle([0, horizon, width, height], fill=street.asphalt)
    pen.rectangle([0, horizon, width, horizon + 14], fill=street.verge)
    x = int(width * street.line)
    for y in range(horizon + 22, height, 44):
        half = 1 + 4 * (y - horizon) / height
        pen.polygon(
            [(x - half, y), (x + half, y), (x + half * 1.3, y + 26), (x - half * 1.3, y + 26)], fill=(224, 222, 212)
        )
    pen.line([(0, horizon + 17), (width, horizon + 17)], fill=(210, 208, 200), width=3)
    grain = rng.normal(0, 5, (height, width, 1)) + rng.normal(0, 3, (height // 8, width // 8, 1)).repeat(8, 0).repeat(
        8, 1
    )
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(1)
    )


def backdrop(pen: ImageDraw.ImageDraw, street: Street, horizon: int, width: int, rng: np.random.Generator) -> None:
    """Houses, trees, hills or a wall along the horizon."""
    if street.behind == "wall":
        pen.rectangle([0, horizon // 3, width, horizon], fill=(168, 162, 154))
        for x in range(0, width, 46):
            pen.line([(x, horizon // 3), (x, horizon)], fill=(146, 140, 134), width=3)
        return
    for x in range(-20, width, 34):
        wide, tall = int(rng.integers(30, 60)), int(rng.integers(horizon // 3, horizon - 8))
        shade = float(rng.uniform(0, 0.35))
        if street.behind == "houses":
            pen.rectangle(
                [x, horizon - tall, x + wide, horizon], fill=mixed((186, 172, 158), (120, 112, 118), shade * 2)
            )
            for i in range(x + 6, x + wide - 6, 12):
                for j in range(horizon - tall + 8, horizon - 8, 14):
                    pen.rectangle([i, j, i + 5, j + 7], fill=(108, 118, 134))
        elif street.behind == "trees":
            pen.ellipse(
                [x, horizon - tall, x + wide, horizon + tall // 2], fill=mixed((84, 128, 66), (40, 76, 44), shade * 2)
            )
        else:
            pen.ellipse(
                [x - 60, horizon - tall // 2, x + wide + 60, horizon + tall],
                fill=mixed((134, 158, 128), (112, 140, 156), shade),
            )


def street_lamps(image: Image.Image, rng: np.random.Generator) -> None:
    pen = ImageDraw.Draw(image)
    for x in rng.integers(0, W, 3):
        y, r = int(rng.integers(8, 34)), int(rng.integers(3, 6))
        pen.ellipse([x - r, y - r, x + r, y + r], fill=(255, 224, 160))


def with_vehicle(scene: Scene, light: float, tint: Colour, rng: np.random.Generator) -> Image.Image:
    """A vehicle on its street. The camera's flash lifts it out of the night."""
    image = street_view(scene, light, tint, rng)
    half, tall = half_extent(scene.body, scene.view)
    scale = min(0.42 * W / half, 0.66 * H / tall) * float(rng.uniform(0.84, 1.0))
    x, ground = W / 2 + float(rng.normal(0, 9)), H * 0.88 + float(rng.normal(0, 6))
    shadow = Image.new("L", (W, H))
    ImageDraw.Draw(shadow).ellipse([x - half * scale * 1.06, ground - 9, x + half * scale * 1.06, ground + 9], fill=150)
    image.paste((16, 16, 20), mask=shadow.filter(ImageFilter.BoxBlur(5)))
    place = (x, ground, scale, float(rng.normal(0, 0.012)))
    draw_vehicle(
        image,
        scene.body,
        scene.view,
        repainted(scene.colour, rng),
        place,
        0.7 + 0.3 * light + float(rng.normal(0, 0.03)),
    )
    if rng.random() < 0.04:
        image = Image.blend(image, Image.new("RGB", (W, H), (255, 240, 214)), float(rng.uniform(0.1, 0.35)))  # haze
    return image


def glare(scene: Scene, light: float, tint: Colour, rng: np.random.Generator) -> Image.Image:
    """Low sun straight into the lens: a white-out with rays and ghosts of the lens."""
    image = with_vehicle(scene, light, tint, rng) if scene.body else street_view(scene, light, tint, rng)
    x, y = float(rng.uniform(0.25, 0.75) * W), float(rng.uniform(0.15, 0.6) * H)
    rows, cols = np.mgrid[0:H, 0:W].astype(np.float32)
    distance = np.hypot(cols - x, rows - y)
    angle = np.arctan2(rows - y, cols - x)
    reach = float(rng.uniform(90, 220))
    burst = np.exp(-((distance / reach) ** 2)) * 1.5 + 0.35 * np.exp(-distance / (1.4 * reach)) * (
        np.cos(angle * 7 + x) > 0.6
    )
    lifted = np.asarray(image) + (burst[..., None] * np.array([300.0, 285, 240]))
    image = Image.fromarray(np.clip(lifted, 0, 255).astype(np.uint8))
    veil = ImageDraw.Draw(image, "RGBA")
    for step in (0.5, 0.9, 1.3, 1.6):
        cx, cy, r = x + step * (W / 2 - x) * 1.5, y + step * (H / 2 - y) * 1.5, 8 + 14 * step
        veil.ellipse([cx - r, cy - r, cx + r, cy + r], fill=(255, 240, 190, 70))
    return image


def rain(scene: Scene, light: float, tint: Colour, rng: np.random.Generator) -> Image.Image:
    """Drops on the lens: nothing behind them is sharp."""
    image = (with_vehicle if scene.body else street_view)(scene, light, tint, rng).filter(
        ImageFilter.GaussianBlur(float(rng.uniform(5, 12)))
    )
    pen = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(rng.integers(25, 60))):
        x, y, r = float(rng.uniform(0, W)), float(rng.uniform(0, H)), float(rng.gamma(4, 2.2))
        pen.ellipse([x - r, y - r * 1.2, x + r, y + r * 1.2], fill=(36, 42, 50, 90))
        pen.ellipse([x - r * 0.8, y - r, x + r * 0.9, y + r * 1.1], fill=(214, 224, 234, 110))
        pen.ellipse([x - r * 0.5, y - r * 0.8, x - r * 0.1, y - r * 0.3], fill=(255, 255, 255, 220))
    return image


def dark(scene: Scene, light: float, tint: Colour, rng: np.random.Generator) -> Image.Image:
    """The exposure failed: almost nothing but a far lamp or two."""
    image = street_view(scene, light, tint, rng).point(lambda v: int(v * 0.07))
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 4))):
        x, y, r = int(rng.integers(20, W - 20)), int(rng.integers(20, H - 20)), int(rng.integers(2, 6))
        pen.ellipse([x - r, y - r, x + r, y + r], fill=(250, 226, 170))
    return image


def sky(scene: Scene, light: float, tint: Colour, rng: np.random.Generator) -> Image.Image:
    """The mount came loose: clouds, and a wire across them."""
    image = Image.new("RGB", (W, H), (122, 172, 232))
    pen = ImageDraw.Draw(image, "RGBA")
    for _ in range(int(rng.integers(3, 8))):
        x, y = float(rng.uniform(0, W)), float(rng.uniform(0, H))
        for dx, dy in rng.normal(0, [26, 8], (9, 2)):
            r = float(rng.uniform(10, 26))
            pen.ellipse([x + dx - r, y + dy - r * 0.7, x + dx + r, y + dy + r * 0.7], fill=(250, 250, 252, 150))
    image = image.filter(ImageFilter.GaussianBlur(3))
    ends = rng.uniform(0, H, 2)
    ImageDraw.Draw(image).line([(0, float(ends[0])), (W, float(ends[1]))], fill=(60, 62, 70), width=2)
    return image.point([min(255, int(v * max(light, 0.45) * c / 255)) for c in tint for v in range(256)])


FAILURES = {"empty": street_view, "glare": glare, "rain": rain, "dark": dark, "sky": sky}


def developed(image: Image.Image, noise: float, sensor: np.random.Generator) -> Image.Image:
    """Halve, blur by a hair and add sensor noise."""
    image = image.reduce(ZOOM).filter(ImageFilter.GaussianBlur(float(sensor.uniform(0, 0.8))))
    grain = sensor.standard_normal((HEIGHT, WIDTH, 3), dtype=np.float32) * noise
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))
