"""Pictures are found in zips and folders, read upright in RGB, and a hostile zip, link or picture does no harm."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from streamclust.errors import InputError
from streamclust.readers import zips
from streamclust.readers.pictures import PictureError, PictureSource, find_pictures, read_picture


def encoded(form: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (6, 4), **options: object) -> bytes:
    """A picture that is dark on the left and light on the right."""
    grey = np.tile(np.linspace(0, 255, size[0]).astype(np.uint8), (size[1], 1))
    file = io.BytesIO()
    Image.fromarray(grey).convert("RGB").convert(mode).save(file, form, **options)
    return file.getvalue()


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def loose(root: Path, members: dict[str, bytes]) -> None:
    for name, data in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def read(source: PictureSource, path: str, **options: int) -> Image.Image:
    offset, size = source.locate([path])
    return read_picture(source, path, int(offset[0]), int(size[0]), **options)


PICTURE = encoded()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_every_member_is_located_and_read(tmp_path: Path, method: int) -> None:
    names = [f"cars/{i}.png" for i in range(50)] + ["ümlaut/車.png", "a b/c,d.png"]
    members = {name: encoded(size=(i + 2, 3)) for i, name in enumerate(names)}
    source = find_pictures(tmp_path, zipped(tmp_path / "x.zip", members, method), names)
    source = pickle.loads(pickle.dumps(source))
    paths = np.array([*names, "cars/none.png"], np.dtypes.StringDType())
    offsets, sizes = source.locate(paths)
    assert (offsets >= 0).tolist() == (sizes >= 0).tolist() == [True] * 52 + [False]
    for i, name in enumerate(names):
        assert read_picture(source, name, int(offsets[i]), int(sizes[i])).size == (i + 2, 3)
    with pytest.raises(PictureError, match="is missing"):
        read(source, "cars/none.png")
    with pytest.raises(PictureError, match="is not where it was"):
        read_picture(source, names[1], int(offsets[0]), int(sizes[0]))


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), n=st.integers(0, 200), window=st.integers(196_651, 400_000), parts=st.integers(1, 4))
def test_the_index_equals_zipfile(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, window: int, parts: int
) -> None:
    """Over windows and partitions of any size, with bytes before the zip and a comment behind it."""
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("zip") / "x.zip"
    with path.open("wb") as raw:
        raw.write(bytes(int(rng.integers(0, 50))))
        with zipfile.ZipFile(raw, "w") as file:
            for i in range(n):
                info = zipfile.ZipInfo(f"{'d' * int(rng.integers(1, 90))}/{i}")
                info.comment = bytes(int(rng.integers(0, 10_000)))
                file.writestr(info, bytes(int(rng.integers(0, 9))))
            file.comment = bytes(rng.integers(65, 90, int(rng.integers(0, 99)), dtype=np.uint8))
    with zipfile.ZipFile(path) as file:
        expected = {info.filename: (info.header_offset, info.compress_size) for info in file.infolist()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zips, "_WINDOW", window)
        patch.setattr(zips, "_PARTITION_BYTES", path.stat().st_size // parts + 1)
        patch.setattr(zips, "_BATCH", int(rng.integers(1, 50)))
        source = PictureSource(path, "zip")
        names = [*expected, "none"]
        found = [np.stack(source.locate(names, part), axis=1) for part in range(source.partitions())]
    assert all((other >= 0).any(axis=1).sum() <= n for other in found)
    assert sum((other[:, 0] >= 0).sum() for other in found) == n  # each in one partition
    np.testing.assert_array_equal(np.max(found, axis=0), [*expected.values(), (-1, -1)])


@pytest.mark.slow
def test_many_entries_in_little_memory(tmp_path: Path) -> None:
    names = [f"cars/{i:06d}.jpg" for i in range(65_600)]  # more than the plain format can count
    path = zipped(tmp_path / "x.zip", dict.fromkeys(names, b""))
    tracemalloc.start()
    source = find_pictures(tmp_path, path, names[:100])
    offsets, _ = source.locate(names[:10])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (offsets >= 0).all()
    assert peak < 30_000_000  # a batch of 65,536 names, and 24 bytes for each
    assert (source.locate(names)[0] >= 0).all()


def test_zip64(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file, file.open("a.png", "w", force_zip64=True) as member:
        member.write(PICTURE)
    data = path.read_bytes()
    at = data.index(b"PK\1\2")
    size, offset = struct.unpack_from("<L", data, at + 20)[0], struct.unpack_from("<L", data, at + 42)[0]
    entry = bytearray(data[at : data.index(b"PK\5\6")])
    extra = struct.pack("<2H3Q", 1, 24, size, size, offset)  # everything in the extra field, as beyond 4 GiB
    struct.pack_into("<2L", entry, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<L", entry, 42, 0xFFFFFFFF)
    name_length = struct.unpack_from("<H", entry, 28)[0]
    struct.pack_into("<H", entry, 30, len(extra))
    directory = bytes(entry[: 46 + name_length]) + extra
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), at)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(data[:at] + directory + record + locator + end)
    assert zipfile.ZipFile(path).read("a.png") == PICTURE
    assert read(PictureSource(path, "zip"), "a.png").size == (6, 4)
    path.write_bytes(data[:at] + directory[:-28] + bytes(28) + record + locator + end)
    with pytest.raises(InputError, match="broken zip64 entry"):
        find_pictures(tmp_path, path, ["a.png"])
    path.write_bytes(data[:at] + directory + record[:3] + bytes(53) + locator + end)
    with pytest.raises(InputError, match="broken zip64 directory"):
        find_pictures(tmp_path, path, ["a.png"])


def test_streamed_members_have_their_sizes_in_the_directory(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:
            self.data += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", PICTURE)
    (tmp_path / "x.zip").write_bytes(pipe.data)
    assert read(PictureSource(tmp_path / "x.zip", "zip"), "a.png").size == (6, 4)


def test_names_that_leave_the_root_are_not_located(tmp_path: Path) -> None:
    names = ["/etc/a.png", "../a.png", "b/../../a.png", "C:/a.png", "folder/"]
    source = PictureSource(zipped(tmp_path / "x.zip", dict.fromkeys([*names, "a.png"], PICTURE)), "zip")
    assert (source.locate([*names, "a.png"])[0] >= 0).tolist() == [False] * 5 + [True]
    (tmp_path / "root").mkdir()
    (tmp_path / "a.png").write_bytes(PICTURE)
    source = PictureSource(tmp_path / "root", "loose")
    assert (source.locate(["../a.png", str(tmp_path / "a.png"), ""])[1] == -1).all()
    with pytest.raises(PictureError):
        read_picture(source, "../a.png", 0, len(PICTURE))


def test_encrypted_and_unknown_methods_are_not_located(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.png": PICTURE, "b.png": PICTURE, "c.png": PICTURE})
    data = bytearray(path.read_bytes())
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 1)
    data[first + 8] |= 1
    data[second + 10] = 12
    path.write_bytes(data)
    offsets, sizes = PictureSource(path, "zip").locate(["a.png", "b.png", "c.png"])
    assert (offsets >= 0).tolist() == (sizes >= 0).tolist() == [False, False, True]


@pytest.mark.parametrize("data", [b"", b"no zip at all", b"PK\5\6", b"PK\5\6" + bytes(18) + b"x"])
def test_no_zip(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "row_data").mkdir()
    (tmp_path / "row_data" / "images.zip").write_bytes(data)
    if data[-1:] != b"x":
        with pytest.raises(InputError, match=r"images\.zip: is not a complete zip"):
            find_pictures(tmp_path, None, ["a.png"])
    else:
        assert (find_pictures(tmp_path, None, ["a.png"]).locate(["a.png"])[0] == -1).all()


def test_damaged_zips(tmp_path: Path) -> None:
    """Any byte of a zip may change: pictures are read, missing or broken, and nothing else comes out."""
    names = [f"{i}.png" for i in range(6)]
    path = zipped(tmp_path / "x.zip", dict.fromkeys(names, PICTURE), zipfile.ZIP_DEFLATED)
    good, rng, errors = path.read_bytes(), np.random.default_rng(3), 0
    for _ in range(600):
        data = bytearray(good)
        for at in rng.integers(0, len(data), int(rng.integers(1, 4))):
            data[at] = rng.integers(256)
        path.unlink()
        path.write_bytes(data[: int(rng.integers(len(data)))] if rng.random() < 0.1 else data)
        try:
            source = find_pictures(tmp_path, path, names)
            for name in names:
                assert read(source, name).tobytes() == Image.open(io.BytesIO(PICTURE)).tobytes()
        except InputError:
            errors += 1
    assert 100 < errors < 600


def test_where_pictures_are_looked_for(tmp_path: Path) -> None:
    examples = ["cars/a.png", "cars/b.png"]
    members = dict.fromkeys(examples, PICTURE)
    for place in ("", "row_data", "images", "row_data/images"):
        loose(tmp_path / place, members)
        source = find_pictures(tmp_path, None, examples)
        assert (source.root, source.kind) == (tmp_path / place, "loose")
        assert read(source, examples[1]).size == (6, 4)
    for place in ("any.zip", "row_data/other.zip", "row_data/images.zip"):
        zipped(tmp_path / place, members)
        source = find_pictures(tmp_path, None, examples)
        assert (source.root, source.kind) == (tmp_path / place, "zip")
    for place in ("images", "any.zip"):
        assert find_pictures(tmp_path, tmp_path / place, examples).root == tmp_path / place


def test_no_pictures_and_unclear_pictures(tmp_path: Path) -> None:
    assert find_pictures(tmp_path, None, ["a.png"]) is None
    for name in ("x.zip", "y.zip"):
        zipped(tmp_path / name, {"a.png": PICTURE})
    with pytest.raises(InputError, match=r"several zip files \(x\.zip, y\.zip\).*--pictures"):
        find_pictures(tmp_path, None, ["a.png"])
    with pytest.raises(InputError, match=r"holds none of the pictures 'b\.png'"):
        find_pictures(tmp_path, tmp_path / "x.zip", ["b.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds none of the pictures"):
        find_pictures(tmp_path, tmp_path / "empty", ["a.png"])
    with pytest.raises(InputError, match="No such file"):
        find_pictures(tmp_path, tmp_path / "none.zip", ["a.png"])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="named pipe"):
        find_pictures(tmp_path, tmp_path / "pipe", ["a.png"])


LEADS = [  # paths of the table, names of the pictures, and the rule that joins them
    (["a.png", "b.png"], ["cars/a.png", "cars/b.png"], "", "cars/", "zip"),
    (["x/cars/a.png", "x/cars/b.png"], ["a.png", "b.png"], "x/cars/", "", "zip"),
    (["x/cars/a.png", "x/cars/b.png"], ["cars/a.png", "cars/b.png"], "x/", "", "zip"),
    (["missing.png", "a.png"], ["cars/a.png"], "", "cars/", "zip"),
    (["x/cars/a.png", "x/cars/b.png"], ["a.png", "b.png"], "x/cars/", "", "loose"),
    (["x/missing.png", "x/b.png"], ["b.png"], "x/", "", "loose"),
]


@pytest.mark.parametrize(("paths", "names", "strip", "lead", "kind"), LEADS)
def test_a_leading_folder_of_one_side(
    tmp_path: Path, paths: list[str], names: list[str], strip: str, lead: str, kind: str
) -> None:
    if kind == "loose":
        loose(tmp_path / "images", dict.fromkeys(names, PICTURE))
    else:
        zipped(tmp_path / "row_data" / "images.zip", dict.fromkeys(["__MACOSX/._a.png", *names], PICTURE))
    source = find_pictures(tmp_path, None, paths)
    assert (source.kind, source.strip, source.lead) == (kind, strip, lead)
    assert read(source, paths[-1]).size == (6, 4)
    assert source.locate(["elsewhere/a.png"])[0].tolist() == [-1]


def test_two_folders_that_fit_are_not_guessed_between(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"cam1/1.png": PICTURE, "cam2/1.png": PICTURE})
    with pytest.raises(InputError, match="same names in 'cam1/' and 'cam2/'"):
        find_pictures(tmp_path, path, ["1.png"])
    source = find_pictures(tmp_path, zipped(path, {"cam1/1.png": PICTURE, "cam2/1.png": PICTURE}), ["cam2/1.png"])
    assert source.lead == source.strip == ""


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "case", tmp_path / "outside"
    loose(outside, {"secret.png": PICTURE})
    loose(root / "real", {"a.png": PICTURE})
    (root / "file.png").symlink_to(outside / "secret.png")
    (root / "folder").symlink_to(outside)
    (root / "inside.png").symlink_to(root / "real" / "a.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "loops").symlink_to(root / "loops")
    os.mkfifo(root / "pipe.png")
    source = PictureSource(root, "loose")
    names = ["file.png", "folder/secret.png", "loop.png", "loops/a.png", "pipe.png", "real", "none.png"]
    assert source.locate(names)[1].tolist() == [-1] * 7
    assert read(source, "inside.png").size == (6, 4)
    for name in names:
        with pytest.raises(PictureError):
            read_picture(source, name, 0, len(PICTURE))
    (root / "real" / "a.png").write_bytes(PICTURE + b"more")
    with pytest.raises(PictureError, match="as before"):
        read_picture(source, "real/a.png", 0, len(PICTURE))


def sixteen_bits(form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.tile(np.linspace(0, 65535, 6).astype(np.uint16), (4, 1))).save(file, form)
    return file.getvalue()


def fractions() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.tile(np.linspace(0, 1, 6).astype(np.float32), (4, 1))).save(file, "TIFF")
    return file.getvalue()


def animated(form: str) -> bytes:
    file = io.BytesIO()
    frames = [Image.open(io.BytesIO(PICTURE)), Image.new("RGB", (6, 4), "red")]
    frames[0].save(file, form, save_all=True, append_images=frames[1:])
    return file.getvalue()


def transparent() -> bytes:
    file = io.BytesIO()
    image = Image.open(io.BytesIO(PICTURE)).convert("P")
    image.save(file, "PNG", transparency=b"\0\xff" * 128)
    return file.getvalue()


FORMS = {
    **{form: encoded(form) for form in ("PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG")},
    "CMYK": encoded("JPEG", "CMYK"), "grey JPEG": encoded("JPEG", "L"), "RGBA": encoded("PNG", "RGBA"),
    "palette": encoded("PNG", "P"), "palette with transparency": transparent(), "1 bit": encoded("PNG", "1"),
    "grey and alpha": encoded("PNG", "LA"), "16 bits": sixteen_bits("PNG"), "16 bits TIFF": sixteen_bits("TIFF"),
    "fractions": fractions(), "animated GIF": animated("GIF"), "animated WebP": animated("WEBP"),
    "animated PNG": animated("PNG"), "pages": animated("TIFF"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_kind_becomes_rgb(tmp_path: Path, form: str) -> None:
    loose(tmp_path, {"a.png": FORMS[form]})
    image = read(PictureSource(tmp_path, "loose"), "a.png")
    assert (image.mode, image.size) == ("RGB", (6, 4))
    values = np.asarray(image).astype(int)
    assert values[:, 0].max() < 30  # dark on the left
    assert values[:, -1].min() > 225  # light on the right


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(tmp_path: Path, orientation: int) -> None:
    """Against the definition of the tag: where row 0 and column 0 of the stored picture are to be seen."""
    sides = {1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left", 5: "left top", 6: "right top",
             7: "right bottom", 8: "left bottom"}  # fmt: skip
    image = Image.new("RGB", (48, 32))
    image.paste((255, 0, 0), (0, 0, 48, 8))  # row 0 is red
    image.paste((0, 0, 255), (0, 8, 12, 32))  # column 0 is blue
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    loose(tmp_path, {"a.png": file.getvalue()})
    seen = np.asarray(read(PictureSource(tmp_path, "loose"), "a.png"))
    edges = {"top": seen[0], "bottom": seen[-1], "left": seen[:, 0], "right": seen[:, -1]}
    row, column = sides[orientation].split()
    assert (edges[row] == [255, 0, 0]).all()
    assert (edges[column] == [0, 0, 255]).all(axis=1).sum() == len(edges[column]) - 8


def png_bomb() -> bytes:
    """A PNG that declares 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    head = struct.pack(">2L5B", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


BROKEN = {
    "empty": b"", "text": b"no picture", "half": encoded("JPEG", size=(64, 64))[:-300], "PNG bomb": png_bomb(),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PPM": b"P6 2 2 255\n" + bytes(12),
    "half a PNG": PICTURE[:-30], "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pictures(tmp_path: Path, name: str) -> None:
    loose(tmp_path, {"a.png": BROKEN[name]})
    with pytest.raises(PictureError, match=r"a\.png") as caught:
        read(PictureSource(tmp_path, "loose"), "a.png")
    assert " at 0x" not in str(caught.value)


def test_too_many_pixels(tmp_path: Path) -> None:
    loose(tmp_path, {"a.png": encoded(size=(100, 100))})
    source = PictureSource(tmp_path, "loose")
    assert read(source, "a.png", max_pixels=10_000).size == (100, 100)
    with pytest.raises(PictureError, match="too many pixels"):
        read(source, "a.png", max_pixels=9_999)


def test_a_zip_bomb_inflates_no_further_than_the_limit(tmp_path: Path) -> None:
    source = PictureSource(zipped(tmp_path / "x.zip", {"a.png": bytes(100_000_000)}, zipfile.ZIP_DEFLATED), "zip")
    tracemalloc.start()
    with pytest.raises(PictureError, match="inflates without end"):
        read(source, "a.png", max_pixels=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.bmp": encoded("BMP")})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") - 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(PictureError, match="checksum"):
        read(PictureSource(path, "zip"), "a.bmp")
