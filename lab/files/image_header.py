"""A picture's size, before a decoder sees the file; and the file without anything that its pixels do not need.

Text, profiles, thumbnails, further frames: what else a picture's file carries is where small files become large in
memory, so the decoder gets a copy that is left with the pixels' own parts. Each walk follows the format's own lengths,
and so finds a file that is cut off or, where the format has checksums, damaged.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

from lab.files.bounds import FileError, malformed

REMEDY = "open it in another program and save it as PNG"
SCANS = 100  # of a progressive JPEG; encoders write about 10, and each one passes over the whole picture


@dataclass(frozen=True, eq=False)
class Header:
    """A picture's format and size as stored; how it is to be turned (EXIF, 1 to 8); the one colour that is transparent.

    `body` is the file that is left for the decoder. `key` is None, or a number for each channel, as the decoder
    spreads them: over 0 to 255, or 65,535 for 16-bit grey.
    """

    kind: str
    width: int
    height: int
    body: io.BytesIO
    orientation: int = 1
    key: tuple[int, ...] | None = None


def read_header(data: bytes) -> Header:
    """The header of a picture in PNG, JPEG, WebP, GIF or BMP, by its content; raises `FileError`.

    >>> from PIL import Image
    >>> Image.new("L", (4, 2)).save(file := io.BytesIO(), "GIF")
    >>> header = read_header(file.getvalue())
    >>> header.kind, header.width, header.height
    ('GIF', 4, 2)
    """
    for kind, (magic, at, walk) in _WALKS.items():
        if data[at : at + len(magic)] == magic:
            with malformed(kind, REMEDY, ValueError):
                try:
                    return walk(data)
                except (IndexError, struct.error) as error:
                    raise FileError(f"not readable as {kind}: the file is cut off; copy it again") from error
    raise FileError(f"this is no picture in {', '.join(_WALKS)}; {REMEDY}")


def _png(data: bytes) -> Header:
    body = io.BytesIO(data[:8])
    body.seek(8)
    orientation, key = 1, None
    at, name = 8, b""
    while name != b"IEND":
        length, name = struct.unpack_from(">L4s", data, at)
        stop = at + 12 + length
        if struct.unpack_from(">L", data, stop - 4)[0] != zlib.crc32(memoryview(data)[at + 4 : stop - 4]):
            raise ValueError(f"the part {name.decode('latin-1')} is damaged")
        if (name == b"IHDR") != (at == 8):
            raise ValueError("it does not begin with its one header")
        if name == b"IHDR":
            width, height, depth, colour = struct.unpack_from(">LLBB", data, at + 8)
            if depth not in (1, 2, 4, 8, 16):
                raise ValueError(f"{depth} bits a channel")
        if name == b"eXIf":
            orientation = _orientation(data[at + 8 : stop - 4])
        if name == b"tRNS" and colour in (0, 2):
            key = _key(struct.unpack(">H" if colour == 0 else ">HHH", data[at + 8 : stop - 4]), depth)
        elif name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            body.write(data[at:stop])
        at = stop
    return Header("PNG", width, height, body, orientation, key)


def _key(samples: tuple[int, ...], depth: int) -> tuple[int, ...] | None:
    if depth < 16:
        return tuple(sample * 255 // (2**depth - 1) for sample in samples)
    return samples if len(samples) == 1 else None  # 16-bit colour is decoded to 8 bits, where many share one colour


def _jpeg(data: bytes) -> Header:
    body = io.BytesIO(data[:2])
    body.seek(2)
    size, orientation = None, None
    at, mark = 2, 0
    while mark != 0xDA:
        fill, mark, length = struct.unpack_from(">BBH", data, at)
        if fill != 0xFF or length < 2:
            raise ValueError("no marker where one should be")
        if mark == 0xFF:
            at += 1
            continue
        segment = data[at : at + 2 + length]
        if mark in (0xC0, 0xC1, 0xC2):
            if size is not None:
                raise ValueError("it has two headers")
            height, width = size = struct.unpack_from(">HH", segment, 5)
        elif 0xC3 <= mark <= 0xCF and mark != 0xC4:
            raise ValueError("neither baseline nor progressive")
        if mark == 0xE1 and orientation is None and segment[4:10] == b"Exif\0\0":
            orientation = _orientation(segment[4:])
        if mark in (0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xEE):  # E0, EE: how colour is coded
            body.write(segment)
        at += 2 + length
    if size is None:
        raise ValueError("its header is missing")
    if data.count(b"\xff\xda", at) > SCANS + len(data) // 2**14:  # in what follows a picture, the pair occurs by chance
        raise ValueError(f"more than {SCANS} scans")
    body.write(memoryview(data)[at:])
    return Header("JPEG", width, height, body, orientation or 1)


def _webp(data: bytes) -> Header:
    body = io.BytesIO(data[:12])
    body.seek(12)
    size, orientation, seen = None, 1, False
    at, end = 12, 8 + int.from_bytes(data[4:8], "little")
    while at < end:
        name, length = struct.unpack_from("<4sL", data, at)
        stop = at + 8 + length + length % 2
        if stop > len(data):
            raise IndexError("it is cut off")
        chunk = data[at:stop]
        if name == b"VP8X":
            size = 1 + int.from_bytes(chunk[12:15], "little"), 1 + int.from_bytes(chunk[15:18], "little")
            chunk = chunk[:8] + bytes([chunk[8] & 0x12]) + chunk[9:]  # no metadata: alpha and animation only
        elif name == b"VP8 " and size is None:
            width, height = struct.unpack_from("<HH", chunk, 14)
            size = width & 0x3FFF, height & 0x3FFF
        elif name == b"VP8L" and size is None:
            (packed,) = struct.unpack_from("<L", chunk, 9)
            size = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        elif name == b"EXIF":
            orientation = _orientation(chunk[8:])
        if name in (b"VP8X", b"ANIM", b"ALPH", b"VP8 ", b"VP8L", b"ANMF") and not seen:
            body.write(chunk)
            seen = name in (b"VP8 ", b"VP8L", b"ANMF")
        at = stop
    if size is None or not seen:
        raise ValueError("it holds no picture")
    length = body.tell() - 8
    body.seek(4)
    body.write(length.to_bytes(4, "little"))
    return Header("WEBP", *size, body, orientation)


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + _palette(flags)
    body = io.BytesIO(data[:at])
    body.seek(at)
    control = b""
    while data[at] == 0x21:
        stop = _blocks_end(data, at + 2)
        if data[at + 1] == 0xF9:
            control = data[at:stop]
        at = stop
    mark, x, y, across, down, flags = struct.unpack_from("<BHHHHB", data, at)
    if mark != 0x2C:
        raise ValueError("it holds no picture")
    stop = _blocks_end(data, at + 11 + _palette(flags))
    body.write(control + data[at:stop] + b";")
    return Header("GIF", max(width, x + across), max(height, y + down), body)


def _palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _blocks_end(data: bytes, at: int) -> int:
    while length := data[at]:
        at += 1 + length
    return at + 1


def _bmp(data: bytes) -> Header:
    (version,) = struct.unpack_from("<L", data, 14)
    width, height = struct.unpack_from("<HH" if version == 12 else "<Ll", data, 18)
    return Header("BMP", width, abs(height), io.BytesIO(data))


def _orientation(exif: bytes) -> int:
    """The tag 0x0112 of the first directory; 1, upright, where there is none or the block is malformed."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    (at,) = struct.unpack_from(order + "L", exif, 4)
    count = struct.unpack_from(order + "H", exif, at)[0] if at + 2 <= len(exif) else 0
    for entry in range(at + 2, min(at + 2 + 12 * count, len(exif) - 11), 12):
        tag, _, _, value = struct.unpack_from(order + "HHLH", exif, entry)
        if tag == 0x0112 and 1 <= value <= 8:
            return value
    return 1


_WALKS = {
    "PNG": (b"\x89PNG\r\n\x1a\n", 0, _png),
    "JPEG": (b"\xff\xd8\xff", 0, _jpeg),
    "WEBP": (b"WEBP", 8, _webp),
    "GIF": (b"GIF8", 0, _gif),
    "BMP": (b"BM", 0, _bmp),
}
