"""Pictures from outside: the pixels are what was written, whatever the format; the rest is one sentence, and no memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import require
from hypothesis import given
from hypothesis import strategies as st
from mutants import EDITS, FUZZ, mutant
from PIL import Image, ImageOps

from lab.files import FileError, Limits, read_image

pytestmark = pytest.mark.filterwarnings("error")

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREYS = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7
SMALL = Limits(max_bytes=2**20, max_rows=256, max_columns=256)
PNG = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes | list[bytes], *more: bytes) -> bytes:
    """A PNG by the specification's letter, each row unfiltered; `more` are chunks before the pixels."""
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = rows if isinstance(rows, bytes) else zlib.compress(b"".join(b"\0" + row for row in rows))
    return PNG + header + b"".join(more) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def saved(picture: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


def bmp(*rows: bytes, size: tuple[int, int], bits: int, palette: bytes = b"", packing: int = 0) -> bytes:
    """A BMP by the letter; rows from the bottom, each padded to four bytes."""
    pixels = b"".join(row.ljust(-(-len(row) // 4) * 4, b"\0") for row in rows)
    start = 54 + len(palette)
    head = struct.pack("<LllHHLLllLL", 40, *size, 1, bits, packing, len(pixels), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<LLL", start + len(pixels), 0, start) + head + palette + pixels


def exif(orientation: int, order: str = "<") -> bytes:
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    entries = struct.pack(order + "HHLHH", 0x0112, 3, 1, orientation, 0)
    other = struct.pack(order + "HHLL", 0x0100, 4, 1, 9)
    return b"Exif\0\0" + mark + struct.pack(order + "LH", 8, 2) + other + entries + bytes(4)


def refused(data: bytes, *words: str, limits: Limits = SMALL) -> None:
    with pytest.raises(FileError) as caught:
        read_image(data, name="my.png", limits=limits)
    sentence = str(caught.value)
    assert sentence.startswith("'my.png': ") and "\n" not in sentence and len(sentence) < 400
    for word in words:
        assert word in sentence, sentence


def same(picture: np.ndarray, truth: np.ndarray | list, tolerance: float = 1e-6) -> None:
    truth = np.asarray(truth, np.float64)
    assert picture.dtype == np.float32 and picture.shape[2] == 3 and picture.min() >= 0 and picture.max() <= 1
    np.testing.assert_allclose(picture, np.broadcast_to(truth, picture.shape), rtol=0, atol=tolerance)


# --- truths ------------------------------------------------------------------------------------------------------


def test_png_of_every_kind() -> None:
    same(read_image(png(7, 5, 8, 2, [row.tobytes() for row in COLOURS])), COLOURS / 255)
    same(read_image(png(7, 5, 8, 0, [row.tobytes() for row in GREYS])), GREYS[..., None] / 255)
    for depth in (1, 2, 4):
        samples = np.arange(16).reshape(2, 8) % 2**depth
        bits = [np.unpackbits(np.uint8(row)[:, None], axis=1)[:, -depth:] for row in samples]
        grey = png(8, 2, depth, 0, [np.packbits(row).tobytes() for row in bits])
        same(read_image(grey), samples[..., None] / (2**depth - 1))
    steps = np.array([[0, 1, 255, 256, 32768, 65535]])
    fine = read_image(png(6, 1, 16, 0, [steps.astype(">u2").tobytes()]))
    same(fine, steps[..., None] / 65535, tolerance=1e-7)
    assert len(np.unique(fine)) == 6
    wide = RNG.integers(0, 2**16, (3, 4, 3))
    same(read_image(png(4, 3, 16, 2, [row.astype(">u2").tobytes() for row in wide])), wide / 65535, 1 / 255)
    palette = chunk(b"PLTE", COLOURS[0].tobytes())
    same(read_image(png(7, 1, 8, 3, [bytes([6, 5, 4, 3, 2, 1, 0])], palette)), COLOURS[:1, ::-1] / 255)
    same(read_image(png(8, 1, 1, 3, [b"\x55"], palette)), np.tile(COLOURS[:1, :2], (1, 4, 1)) / 255)
    assert read_image(saved(np.tile(GREYS, (20, 30)), "PNG")).shape == (100, 210, 3)  # more than a strip


def test_transparency_is_laid_over_white() -> None:
    alpha = RNG.integers(0, 256, (5, 7, 1), dtype=np.uint8)
    over = COLOURS / 255 * (alpha / 255) + 1 - alpha / 255
    rgba = np.concatenate([COLOURS, alpha], axis=2)
    same(read_image(png(7, 5, 8, 6, [row.tobytes() for row in rgba])), over)
    same(read_image(png(7, 5, 16, 6, [np.repeat(row, 2).tobytes() for row in rgba])), over)
    same(read_image(saved(rgba, "WEBP", lossless=True, exact=True)), over)
    grey = np.concatenate([GREYS[..., None], alpha], axis=2)
    over = GREYS[..., None] / 255 * (alpha / 255) + 1 - alpha / 255
    same(read_image(png(7, 5, 8, 4, [row.tobytes() for row in grey])), over)
    same(read_image(png(7, 5, 16, 4, [np.repeat(row, 2).tobytes() for row in grey])), over)
    palette = chunk(b"PLTE", COLOURS[0, :3].tobytes())
    for alphas in ([255, 0, 255], [255, 102, 0]):
        over = COLOURS[:1, :3] / 255 * (np.array(alphas) / 255)[:, None] + 1 - (np.array(alphas) / 255)[:, None]
        same(read_image(png(3, 1, 8, 3, [b"\0\1\2"], palette, chunk(b"tRNS", bytes(alphas)))), over)
    gif = saved(Image.fromarray(np.array([[0, 1, 2]], np.uint8)), "GIF", transparency=1)
    same(read_image(gif), [[[0] * 3, [1] * 3, [2 / 255] * 3]])


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key", "truth"),
    [
        (1, 0, b"\x40", b"\0\1", [0, 1, 0]),
        (1, 0, b"\x40", b"\0\0", [1, 1, 1]),
        (2, 0, b"\x18", b"\0\1", [0, 1, 2 / 3]),
        (4, 0, b"\x18\xf0", b"\0\x08", [1 / 15, 1, 1]),
        (8, 0, b"\x0a\x14\x1e", b"\0\x14", [10 / 255, 1, 30 / 255]),
        (16, 0, b"\1\0\1\1\1\2", b"\1\1", [256 / 65535, 1, 258 / 65535]),
        (8, 2, b"\1\1\1\2\2\2\1\1\2", b"\0\2\0\2\0\2", [[1 / 255] * 3, [1] * 3, [1 / 255, 1 / 255, 2 / 255]]),
        (16, 2, b"\1" * 18, b"\1" * 6, [1 / 255] * 3),  # which of 256 shades is meant is lost at 8 bits: none is
    ],
)
def test_the_one_transparent_colour_of_a_png(depth: int, colour: int, row: bytes, key: bytes, truth: list) -> None:
    picture = read_image(png(3, 1, depth, colour, [row], chunk(b"tRNS", key)))
    same(picture, np.array([truth]) if isinstance(truth[0], list) else np.array([truth])[..., None])


def test_the_other_formats() -> None:
    for kind, options in (("WEBP", {"lossless": True}), ("BMP", {}), ("PNG", {"interlace": 1})):
        same(read_image(saved(COLOURS, kind, **options)), COLOURS / 255)
    for kind in ("GIF", "BMP"):
        same(read_image(saved(GREYS, kind)), GREYS[..., None] / 255)
        same(read_image(saved(Image.fromarray(COLOURS).quantize(64), kind)), COLOURS / 255)
        same(read_image(saved(Image.fromarray(GREYS > 99), kind)), (GREYS > 99)[..., None])
    red_blue = [[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [1, 1, 1]]]
    same(read_image(bmp(b"\0\0\0\xff\xff\xff", b"\0\0\xff\xff\0\0", size=(2, 2), bits=24)), red_blue)
    same(read_image(bmp(b"\0\0\xff\xff\0\0", b"\0\0\0\xff\xff\xff", size=(2, -2), bits=24)), red_blue)
    table = b"\0\0\xff\0\xff\0\0\0\0\0\0\0\xff\xff\xff\0"
    same(read_image(bmp(b"\x23", b"\x01", size=(2, 2), bits=4, palette=table)), red_blue)
    blocks = np.kron(COLOURS[:2, :2], np.ones((16, 16, 1), np.uint8))
    for options in ({}, {"progressive": True}):
        jpeg = saved(blocks, "JPEG", quality=100, subsampling=0, **options)
        same(read_image(jpeg), blocks / 255, 3 / 255)
    same(read_image(saved(np.full((9, 9), 200, np.uint8), "JPEG")), 200 / 255)
    same(read_image(saved(np.full((8, 8, 3), 90, np.uint8), "WEBP")), 90 / 255, 2 / 255)
    cmyk = np.kron(RNG.integers(0, 256, (2, 2, 4), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
    ink = (1 - cmyk[..., :3] / 255) * (1 - cmyk[..., 3:] / 255)
    cyan = saved(Image.frombytes("CMYK", (32, 32), cmyk.tobytes()), "JPEG", quality=100, subsampling=0)
    same(read_image(cyan), ink, 4 / 255)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    frames = [Image.new("L", (4, 3), grey).convert("RGB") for grey in (51, 102, 204)]
    film = saved(frames[0], kind, save_all=True, append_images=frames[1:], **{"WEBP": {"lossless": True}}.get(kind, {}))
    same(read_image(film), 0.2)


SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    """By EXIF's own words: on which side the stored row 0, and column 0, belong."""
    shown = read_image(saved(GREYS, "PNG", exif=exif(orientation)))
    edges = {"top": shown[0], "bottom": shown[-1], "left": shown[:, 0], "right": shown[:, -1]}
    for side, stored in zip(SIDES[orientation], (GREYS[0], GREYS[:, 0]), strict=True):
        assert sorted(np.rint(edges[side][:, 0] * 255)) == stored.tolist()
    blocks = np.kron(COLOURS[:2, :3], np.ones((16, 16, 1), np.uint8))
    for order in "<>":
        for kind, options in (("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True})):
            data = saved(blocks, kind, exif=exif(orientation, order), **options)
            with Image.open(io.BytesIO(data)) as picture:
                same(read_image(data), np.asarray(ImageOps.exif_transpose(picture).convert("RGB")) / 255)


def test_an_orientation_that_is_none_is_upright() -> None:
    whole = exif(6)
    for block in (
        exif(0),
        exif(9),
        whole[:4],
        whole[:20],
        whole[:-20],
        b"Exif\0\0JUNKJUNKJUNK",
        whole[:10] + b"\xff" * 8,
    ):
        assert read_image(saved(GREYS, "PNG", exif=block)).shape == (5, 7, 3)
        assert read_image(saved(GREYS, "JPEG", exif=block)).shape == (5, 7, 3)


def test_every_source_gives_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data := saved(COLOURS, "PNG"))
    with path.open("rb") as opened:
        for source in (path, str(path), data, io.BytesIO(data), opened):
            same(read_image(source), COLOURS / 255)
    with pytest.raises(TypeError, match="source"):
        read_image(7)  # type: ignore[arg-type]


# --- refusals ----------------------------------------------------------------------------------------------------

JPEG = saved(COLOURS, "JPEG")
WEBP = saved(COLOURS, "WEBP", lossless=True)
GIF = saved(GREYS, "GIF")
ROW = zlib.compress(bytes(4))
VP8X = b"VP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\xff" * 2


def sized(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<L", len(chunks) + 4) + b"WEBP" + chunks


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["empty"]),
        (b"no picture", ["no picture in PNG, JPEG, WEBP, GIF, BMP; open it in another program and save it as PNG"]),
        (saved(COLOURS, "TIFF"), ["no picture in PNG"]),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ["no picture in PNG"]),
        (png(257, 1, 8, 0, b""), ["at most 256 pixels wide, 256 high", "this one is 257 x 1; scale it"]),
        (png(1, 257, 8, 0, b""), ["1 x 257"]),
        (png(0, 1, 8, 0, ROW), ["at least one", "0 x 1"]),
        (PNG, ["not readable as PNG: the file is cut off; copy it again"]),
        (saved(COLOURS, "PNG")[:-1], ["PNG: the file is cut off"]),
        (PNG + chunk(b"IEND", b""), ["does not begin with its one header"]),
        (png(3, 1, 8, 0, ROW, png(9, 9, 8, 0, b"")[8:33]), ["one header"]),
        (saved(COLOURS, "PNG")[:-13] + b"x" + saved(COLOURS, "PNG")[-12:], ["the part IDAT is damaged"]),
        (png(3, 1, 0, 0, ROW, chunk(b"tRNS", b"\0\0")), ["not readable as PNG", "0 bits a channel"]),
        (png(3, 1, 16, 3, ROW), ["not readable as PNG"]),
        (png(3, 1, 8, 0, b"nonsense"), ["not readable as PNG"]),
        (png(3, 1, 8, 0, ROW, chunk(b"tRNS", b"")), ["not readable as PNG"]),
        (b"\xff\xd8\xff\xd9", ["JPEG: the file is cut off"]),
        (b"\xff\xd8\xff\xe0\0\1", ["no marker"]),
        (JPEG.replace(b"\xff\xc0", b"\xff\xc3"), ["neither baseline nor progressive"]),
        (JPEG.replace(b"\xff\xc0", b"\xff\xfe"), ["its header is missing"]),
        (JPEG[:2] + JPEG[JPEG.index(b"\xff\xc0") :][:19] + JPEG[2:], ["it has two headers"]),
        (JPEG[:-2] + b"\xff\xda" * 102 + JPEG[-2:], ["more than 100 scans"]),
        (JPEG[:-2], ["not readable as JPEG", "truncated"]),
        (b"RIFF\xff\xff\0\0WEBP" + VP8X, ["WEBP: the file is cut off"]),
        (b"RIFF\x16\0\0\0WEBP" + VP8X, ["holds no picture"]),
        (WEBP[:12] + VP8X + WEBP[12:], ["16,777,216 x 16,777,216"]),
        (WEBP[:4] + b"\xff\0\0\0WEBP" + VP8X, ["not readable as WEBP"]),
        (sized(WEBP[12:] + VP8X[:12] + b"\x63\0\0\x63\0\0"), ["stated in two ways"]),
        (GIF[:6] + b"\xff\xff\xff\xff" + GIF[10:], ["65,535 x 65,535"]),
        (GIF[:13] + b";", ["not readable as GIF"]),
        (GIF[:-1].replace(b",\0\0\0\0", b",\xff\xff\xff\xff"), ["65,542 x 65,540"]),
        (bmp(size=(2**31 - 1, 1), bits=24), ["2,147,483,647 x 1"]),
        (bmp(size=(1, -(2**31)), bits=24), ["1 x 2,147,483,648"]),
        (bmp(b"\0\0\0", size=(9, 9), bits=24), ["not readable as BMP", "truncated"]),
        (bmp(b"\0\0\0", size=(1, 1), bits=23), ["not readable as BMP", "pixel depth"]),
        (b"BM" + bytes(10), ["BMP: the file is cut off"]),
    ],
)
def test_refusals(data: bytes, words: list[str]) -> None:
    refused(data, *words)


def test_more_pixels_than_in_all() -> None:
    wide = Limits(max_bytes=2**20, max_rows=2**31, max_columns=2**31)
    refused(png(5001, 5000, 8, 0, b""), "25,000,000 in all", "5,001 x 5,000", limits=wide)
    refused(png(2**31, 2**31, 8, 0, b""), "2,147,483,648 x 2,147,483,648", limits=wide)
    refused(bytes(2**20 + 1), "at most 1 MiB")


VALID = {
    "png": saved(COLOURS, "PNG"),
    "png palette": saved(Image.fromarray(COLOURS).quantize(9), "PNG", transparency=1, exif=exif(6)),
    "png 16": png(3, 1, 16, 0, [b"\1\0\1\1\1\2"], chunk(b"tRNS", b"\1\1")),
    "jpeg": saved(COLOURS, "JPEG", exif=exif(6)),
    "jpeg progressive": saved(COLOURS, "JPEG", progressive=True),
    "jpeg cmyk": saved(Image.fromarray(COLOURS).convert("CMYK"), "JPEG"),
    "webp": saved(COLOURS, "WEBP", exif=exif(6)),
    "webp lossless": WEBP,
    "webp film": saved(COLOURS, "WEBP", save_all=True, append_images=[Image.fromarray(COLOURS[::-1])]),
    "gif": GIF,
    "gif film": saved(COLOURS, "GIF", save_all=True, append_images=[Image.fromarray(COLOURS[::-1])]),
    "bmp": saved(COLOURS, "BMP"),
    "bmp palette": saved(GREYS, "BMP"),
    "bmp runs": bmp(b"\3\1\0\0\2\2\1\0\0\1", size=(3, 2), bits=8, palette=bytes(range(16)), packing=1),
}


@pytest.mark.parametrize("kind", VALID)
def test_a_file_that_is_cut_is_not_half_decoded(kind: str) -> None:
    data, whole = VALID[kind], read_image(VALID[kind])
    for end in range(1, len(data)):
        try:
            picture = read_image(data[:end])
        except FileError:
            continue
        np.testing.assert_array_equal(picture, whole)  # padding, or a further frame, was cut off


# --- memory ------------------------------------------------------------------------------------------------------

STATUS = Path("/proc/self/status")


def resident(field: str) -> int:
    """Bytes of this process's memory, Pillow's included: VmRSS is now, VmHWM the most since the last reset."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


@contextmanager
def peak_resident(most: float, least: float = 0) -> Iterator[None]:
    if not os.access("/proc/self/clear_refs", os.W_OK):
        yield  # no Linux
        return
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    yield
    peak = resident("VmHWM") - before
    assert least <= peak <= most, f"peak {peak / 2**20:.1f} MiB, not {least / 2**20:.1f} to {most / 2**20:.1f}"


def within_the_stated_memory() -> None:
    """Run in a process of its own, in which freed memory is given back at once."""
    side = 1200
    picture = Image.fromarray(RNG.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)).resize((side, side))
    for kind, mode, options in (
        ("PNG", "RGBA", {"compress_level": 1}),
        ("PNG", "1", {}),
        ("JPEG", "RGB", {"progressive": True, "subsampling": 0, "exif": exif(6)}),
        ("JPEG", "CMYK", {"progressive": True, "subsampling": 0}),
        ("WEBP", "RGBA", {"lossless": True, "quality": 0, "method": 0, "exif": exif(5)}),
        ("WEBP", "RGB", {"method": 0, "save_all": True, "append_images": [Image.new("RGB", (side, side))]}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
    ):
        data = saved(picture.convert(mode), kind, **options)
        with peak_resident(20 * side**2 + 3 * len(data) + 2**24, least=12 * side**2):
            assert read_image(data).shape == (side, side, 3)
    texts = b"".join(chunk(b"zTXt", b"a%d\0\0" % i + zlib.compress(bytes(2**20 - 9))) for i in range(60))
    for small in (
        png(3, 1, 8, 0, ROW, texts),
        GIF.replace(b",\0\0\0\0", b"!\xfe" + b"\2no" * 2**20 + b"\0,\0\0\0\0"),
        sized(VP8X[:12] + b"\6\0\0\4\0\0" + b"junk\0\0\0\0" * 2**19 + WEBP[12:]),
        png(16_000, 1_500, 8, 6, b"")[:60],
        saved(Image.new("L", (1, 9000)), "JPEG", progressive=True),
    ):
        with peak_resident(3 * len(small) + 2**24):
            try:
                read_image(small)
            except FileError:
                assert len(small) < 99


def test_memory_is_what_is_stated() -> None:
    require(os.access("/proc/self/clear_refs", os.W_OK), "resident memory is measured on Linux")
    code = "import test_files_image as t; t.read_image(t.VALID['webp']); t.within_the_stated_memory()"
    tests = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": f"{tests}:{Path(tests).parent}", "MALLOC_MMAP_THRESHOLD_": "65536"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


# --- fuzz --------------------------------------------------------------------------------------------------------


def with_sound_checksums(data: bytes) -> bytes:
    """The PNG with each part's checksum made true, so that what else is wrong with it gets further."""
    out, at = data[:8], 8
    while at + 12 <= len(data):
        length = min(int.from_bytes(data[at : at + 4], "big"), len(data) - at - 12)
        out += chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return out


@FUZZ
@given(kind=st.sampled_from(sorted(VALID)), edits=EDITS, mended=st.booleans())
def test_mutants_are_pictures_or_sentences(kind: str, edits: list, mended: bool) -> None:
    data = mutant(VALID[kind], edits)
    if mended and kind.startswith("png"):
        data = with_sound_checksums(data)
    with peak_resident(20 * 256**2 + 3 * len(data) + 2**24):
        try:
            picture = read_image(data, limits=SMALL)
        except FileError as error:
            assert "\n" not in str(error)
        else:
            assert picture.dtype == np.float32 and picture.min() >= 0 and picture.max() <= 1
