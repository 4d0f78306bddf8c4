"""A picture that a user brings, as numbers: PNG, JPEG, WebP, GIF and BMP, decoded by Pillow once its size is known.

Not TIFF, HEIC, AVIF or SVG: their decoders take memory that no header tells in advance.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from lab.files.bounds import FileError, Limits, Source, content, malformed
from lab.files.image_header import REMEDY, Header, read_header

if TYPE_CHECKING:
    from PIL import Image

IMAGE_LIMITS = Limits(max_bytes=32 * 2**20, max_rows=16_384, max_columns=16_384)
MAX_PIXELS = 25_000_000  # what a telephone takes today
STRIP_PIXELS = 2**16
# What Pillow raises on bytes that are no picture.
_BAD_IMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, struct.error, MemoryError)
_READ_AS = {"1": "L", "P": "RGBA", "CMYK": "RGB"}


def read_image(
    source: Source, *, name: str | None = None, limits: Limits = IMAGE_LIMITS
) -> Float32[np.ndarray, "h w 3"]:
    """A picture as red, green and blue in [0, 1], of shape (height, width, 3), upright as its EXIF orientation says.

    `source` is a path, the file's bytes, or an open binary stream; `name` serves messages only. The format is found
    from the content. Grey becomes three equal channels, a palette its colours, CMYK red = (1 - cyan)(1 - black) and so
    on; what is transparent is laid over white; of an animation you get the first frame. 16-bit grey keeps its steps,
    16-bit colour is read at 8 bits. Values are the file's own, without its colour profile.

    `limits.max_rows` and `max_columns` bound height and width as stored, `MAX_PIXELS` their product. Memory, the
    result included: 20 bytes a pixel, three times the file, and 16 MiB.

    Raises `FileError` for another format, a file over a limit, and one that is cut off or damaged; `TypeError` when
    `source` is none of the three.

    >>> import io, PIL.Image
    >>> PIL.Image.new("L", (4, 2), color=51).save(file := io.BytesIO(), "PNG")
    >>> read_image(file).shape, read_image(file)[0, 0].tolist()
    ((2, 4, 3), [0.20000000298023224, 0.20000000298023224, 0.20000000298023224])
    """
    data, title = content(source, name, limits)
    try:
        header = read_header(data)
        _check_size(header, limits)
        return _upright(_decoded(header), header)
    except FileError as error:
        raise FileError(f"{title}: {error}") from error


def _check_size(header: Header, limits: Limits) -> None:
    width, height = header.width, header.height
    if not (0 < width <= limits.max_columns and 0 < height <= limits.max_rows and width * height <= MAX_PIXELS):
        raise FileError(
            f"a picture may be at most {limits.max_columns:,} pixels wide, {limits.max_rows:,} high and {MAX_PIXELS:,} "
            f"in all, and at least one, but this one is {width:,} x {height:,}; scale it to fit"
        )


def _decoded(header: Header) -> Image.Image:
    # The formats' own classes and not Image.open: it warns of large pictures and of files that it cannot identify, and
    # a warning can only be caught for all threads at once.
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.GifImagePlugin import GifImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    files: dict[str, Callable[[IO[bytes]], Image.Image]] = {
        "PNG": PngImageFile,
        "JPEG": JpegImageFile,
        "WEBP": WebPImageFile,
        "GIF": GifImageFile,
        "BMP": BmpImageFile,
    }
    header.body.seek(0)
    with malformed(header.kind, REMEDY, *_BAD_IMAGE):
        picture = files[header.kind](header.body)
        if picture.size != (header.width, header.height):
            raise ValueError("its size is stated in two ways")
        return picture.copy()  # without the decoder, whose buffers are larger than the picture


def _upright(picture: Image.Image, header: Header) -> Float32[np.ndarray, "h w 3"]:
    """The picture's colours, in strips: what they need on the way is small beside the result."""
    width, height, turn = header.width, header.height, header.orientation
    upright = np.empty((height, width, 3) if turn < 5 else (width, height, 3), np.float32)
    as_stored = upright if turn < 5 else upright.swapaxes(0, 1)
    if turn in (3, 4, 6, 7):
        as_stored = as_stored[::-1]
    if turn in (2, 3, 7, 8):
        as_stored = as_stored[:, ::-1]
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(top + rows, height)))
        as_stored[top : top + rows] = _over_white(strip, header.key)
    return upright


def _over_white(strip: Image.Image, key: tuple[int, ...] | None) -> Float32[np.ndarray, "h w c"]:
    """One channel, grey, or three; `key` is the colour that is transparent."""
    grey16 = strip.mode.startswith("I")
    samples = np.asarray(strip if grey16 else strip.convert(_READ_AS.get(strip.mode, strip.mode)))
    samples = samples[..., None] if samples.ndim == 2 else samples
    values = samples.astype(np.float32) / np.float32(65_535 if grey16 else 255)
    channels = values.shape[-1]
    if channels in (2, 4):
        values, alpha = values[..., :-1], values[..., -1:]
    elif key is not None:
        alpha = (samples != np.array(key)).any(axis=-1, keepdims=True).astype(np.float32)
    else:
        return values
    return values * alpha + (1 - alpha)
