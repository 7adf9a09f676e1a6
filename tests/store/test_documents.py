"""A document made once for arrays that are alike is, byte for byte, what Zarr writes beside each of them."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from streamclust.store import arrays


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4", "int64", "bool", "uint8"])
@pytest.mark.parametrize(
    ("shape", "rows", "inner"), [((7,), 7, 0), ((9, 2), 4, 0), ((64, 5), 32, 8), ((0, 3), 1, 0), ((9, 0), 9, 0)]
)
@pytest.mark.parametrize("compress", [False, True])
def test_arrays_are_as_zarr_creates_them(tmp_path, dtype, shape, rows, inner, compress):
    wide = tuple(max(1, size) for size in shape[1:])
    zarr.create_array(
        tmp_path / "theirs",
        shape=shape,
        chunks=(inner or rows, *wide),
        shards=(rows, *wide) if inner else None,
        dtype=dtype,
        compressors=[ZstdCodec(level=1), Crc32cCodec()] if compress else [Crc32cCodec()],
        filters=None,
        fill_value=np.nan if np.dtype(dtype).kind == "f" else 0,
        zarr_format=3,
    )
    for name in ("ours", "alike"):
        arrays.create_array(tmp_path / name, shape, dtype, rows, compress=compress, inner=inner)
        assert (tmp_path / name / "zarr.json").read_bytes() == (tmp_path / "theirs" / "zarr.json").read_bytes()


def test_groups_are_as_zarr_creates_them(tmp_path):
    zarr.create_group(tmp_path / "theirs", zarr_format=3)
    for name in ("ours", "alike"):
        arrays.create_group(tmp_path / name)
        assert (tmp_path / name / "zarr.json").read_bytes() == (tmp_path / "theirs" / "zarr.json").read_bytes()
