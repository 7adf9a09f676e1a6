"""Pictures side by side: thumbnails, letterboxed contact sheets, neutral tiles where a picture is missing or broken."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamclust.errors import InputError
from streamclust.render.canvas import LIGHT, elide, font

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

GAP, CAPTION_PX, LINE_PX = 10, 13, 18
TITLE_PX = 24
MAT = "#eef0f3"
"""The neutral colour around a letterboxed picture and behind a missing one."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture of a sheet and its caption (may have several lines); ``broken``: there is one that cannot be read."""

    image: Image.Image | None
    caption: str = ""
    broken: bool = False


def contact_sheet(tiles: Sequence[Tile], columns: int, thumb: int = 160, title: str = "") -> Image.Image:
    """``tiles`` in rows of ``columns``, each letterboxed into ``thumb`` x ``thumb`` pixels over its elided caption.

    An empty sheet says that there are no pictures. Raises InputError where ``columns`` or ``thumb`` is below 1.
    """
    from PIL import Image, ImageDraw

    if columns < 1 or thumb < 1:
        raise InputError("contact_sheet", f"columns={columns}, thumb={thumb}", "at least 1 of each")
    lines = max((len(tile.caption.splitlines()) for tile in tiles), default=0)
    cell = (thumb + GAP, thumb + GAP + lines * LINE_PX)
    top = TITLE_PX * 2 if title else GAP
    rows = max(1, -(-len(tiles) // columns))
    sheet = Image.new("RGB", (columns * cell[0] + GAP, top + rows * cell[1] + GAP), LIGHT.background)
    draw = ImageDraw.Draw(sheet)
    face = font(TITLE_PX, bold=True)
    draw.text((GAP, top // 2), elide(title, face, sheet.width - 2 * GAP), font=face, fill=LIGHT.text, anchor="lm")
    for i, tile in enumerate(tiles):
        x, y = GAP + (i % columns) * cell[0], top + (i // columns) * cell[1]
        sheet.paste(_letterboxed(tile, thumb), (x, y))
        for line, text in enumerate(tile.caption.splitlines()):
            small = font(CAPTION_PX)
            at = (x, y + thumb + 3 + line * LINE_PX)
            draw.text(at, elide(text, small, thumb), font=small, fill=LIGHT.muted)
    if not tiles:
        draw.text((GAP, top + thumb // 2), "no pictures", font=font(CAPTION_PX), fill=LIGHT.muted, anchor="lm")
    return sheet


def thumbnail(image: Image.Image, size: int = 160, quality: int = 80) -> bytes:
    """``image`` as JPEG bytes no larger than ``size`` pixels a side, on white where it is transparent."""
    small = _opaque(image)
    small.thumbnail((size, size))
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=quality, optimize=True)
    return out.getvalue()


def _letterboxed(tile: Tile, thumb: int) -> Image.Image:
    from PIL import Image, ImageDraw, ImageOps

    mat = Image.new("RGB", (thumb, thumb), MAT)
    if tile.image is None or tile.broken:
        words = "broken picture" if tile.broken else "no picture"
        draw = ImageDraw.Draw(mat)
        draw.rectangle((0, 0, thumb - 1, thumb - 1), outline=LIGHT.rule)
        face = font(max(8, min(CAPTION_PX + 1, thumb // 9)))
        draw.text((thumb // 2, thumb // 2), words, font=face, fill=LIGHT.muted, anchor="mm")
        return mat
    small = ImageOps.contain(_opaque(tile.image), (thumb, thumb))
    mat.paste(small, ((thumb - small.width) // 2, (thumb - small.height) // 2))
    return mat


def _opaque(image: Image.Image) -> Image.Image:
    """An RGB copy: 16-bit greys scaled to 8 bits, transparency on white."""
    from PIL import Image

    if image.mode.startswith("I"):
        return image.point(lambda v: v / 257.0).convert("L").convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        white.alpha_composite(layer)
        return white.convert("RGB")
    return image.convert("RGB")
