"""The page to look at a pyramid of tiles with, and large images put together from tiles strip by strip."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BACKGROUND = (0, 0, 4)


def over(below: NDArray[np.uint8], tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB pixels with an RGBA tile laid over them."""
    alpha = tile[..., 3:].astype(np.float32) / 255
    return np.asarray(np.rint(below * (1 - alpha) + tile[..., :3] * alpha), np.uint8)


def grey(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A density tile without its colours and at half its brightness, to lie below other layers."""
    found = tile.copy()
    found[..., :3] = np.rint(0.5 * tile[..., :3] @ np.array([0.2126, 0.7152, 0.0722]))[..., None]
    return found


def read_tile(path: Path) -> NDArray[np.uint8]:
    """One tile as RGBA, (256, 256, 4)."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGBA"))


def write_image(path: Path, side: int, strips: Iterable[NDArray[np.uint8]]) -> None:
    """Write a square RGB image strip by strip, so that no more than a strip is ever in memory."""
    packer = zlib.compressobj(4)
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _chunk(file, b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        for strip in strips:
            lines = np.zeros((len(strip), 1 + 3 * side), np.uint8)  # each line begins with its filter: none
            lines[:, 1:] = strip.reshape(len(strip), -1)
            _chunk(file, b"IDAT", packer.compress(lines.tobytes()))
        _chunk(file, b"IDAT", packer.flush())
        _chunk(file, b"IEND", b"")


def _chunk(file: Any, kind: bytes, data: bytes) -> None:
    file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))


def page(view: Mapping[str, Any]) -> str:
    """The page to look at a pyramid with: one file without a network, beside the folders of tiles."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent / "templates"
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    data = json.dumps(view, ensure_ascii=True).replace("<", "\\u003c")  # so that no text can end the script
    parts = {end: (folder / f"pyramid.{end}").read_text(encoding="utf-8") for end in ("css", "js")}
    html: str = environment.get_template("pyramid.html").render(title=view["title"], data=data, **parts)
    return html
