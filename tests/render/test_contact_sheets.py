"""Contact sheets: sizes, letterboxing, and neutral tiles for what is missing or broken."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from streamclust.errors import InputError
from streamclust.render.contact_sheets import GAP, LINE_PX, MAT, Tile, contact_sheet, thumbnail

MODES = ("RGB", "L", "RGBA", "LA", "P", "CMYK", "1", "I;16", "I", "F")


@settings(max_examples=25)
@given(
    count=st.integers(0, 23),
    columns=st.integers(1, 9),
    thumb=st.integers(8, 90),
    captions=st.lists(st.text(max_size=300), min_size=24, max_size=24),
)
def test_the_sheet_is_as_large_as_its_grid(count, columns, thumb, captions):
    tiles = [Tile(image=Image.new("RGB", (1 + i * 9, 40)), caption=captions[i]) for i in range(count)]
    lines = max((len(tile.caption.splitlines()) for tile in tiles), default=0)
    sheet = contact_sheet(tiles, columns, thumb)
    assert sheet.width == columns * (thumb + GAP) + GAP
    rows = max(1, -(-count // columns))
    assert sheet.height == rows * (thumb + GAP + lines * LINE_PX) + 2 * GAP


@pytest.mark.parametrize(("size", "box"), [((200, 100), (0, 20, 80, 60)), ((50, 200), (30, 0, 50, 80))])
def test_pictures_are_letterboxed_in_the_middle(size, box):
    sheet = np.asarray(contact_sheet([Tile(image=Image.new("RGB", size, "#ff0000"))], 1, 80))
    tile = sheet[GAP : GAP + 80, GAP : GAP + 80]
    y, x = np.nonzero((tile == (255, 0, 0)).all(axis=2))
    assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == box
    assert ((tile == ImageColor.getrgb(MAT)).all(axis=2) | (tile == (255, 0, 0)).all(axis=2)).all()


def test_missing_and_broken_tiles_are_neutral_and_differ():
    red = Image.new("RGB", (40, 40), "#ff0000")
    missing, broken, broken_too = (
        np.asarray(contact_sheet([tile], 1)).astype(int)
        for tile in (Tile(image=None), Tile(image=None, broken=True), Tile(image=red, broken=True))
    )
    assert np.ptp(broken, axis=2).max() < 20
    assert (broken == broken_too).all()
    assert (broken != missing).any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 1), (7, 500), (4000, 3), (300, 200)])
def test_thumbnails_of_any_mode_fit_and_keep_their_shape(mode, size):
    data = thumbnail(Image.new(mode, size), 160)
    with Image.open(io.BytesIO(data)) as small:
        assert small.format == "JPEG"
        assert small.mode == "RGB"
        assert max(small.size) == min(160, max(size))
        scale = min(1, 160 / max(size))
        assert abs(small.width - size[0] * scale) <= 1
        assert abs(small.height - size[1] * scale) <= 1


def test_sixteen_bits_are_scaled_not_clipped():
    grey = Image.fromarray(np.full((40, 40), 32768, np.uint16))
    with Image.open(io.BytesIO(thumbnail(grey))) as small:
        assert abs(small.getpixel((20, 20))[0] - 127) <= 2


def test_transparency_shows_white_and_the_original_is_left_alone():
    image = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    with Image.open(io.BytesIO(thumbnail(image))) as small:
        assert small.getpixel((5, 5)) == (255, 255, 255)
    assert image.size == (300, 300)


def test_impossible_sheets_are_refused():
    with pytest.raises(InputError, match="columns=0"):
        contact_sheet([], 0)
