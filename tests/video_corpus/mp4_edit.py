"""Byte edits of MP4 files, for what PyAV cannot write."""

import struct


CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"moof", b"traf", b"mvex")


def find_boxes(data, kind, start=0, end=None):
    """Yield (offset of the payload, offset behind the box) for every box of a kind, at any depth."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, name = struct.unpack(">I4s", data[start : start + 8])
        header = 8
        if size == 1:
            size, header = struct.unpack(">Q", data[start + 8 : start + 16])[0], 16
        if size < header or start + size > end:
            return
        if name == kind:
            yield start + header, start + size
        if name in CONTAINERS:
            yield from find_boxes(data, kind, start + header, start + size)
        start += size


def set_matrix(data, matrix):
    """Write a display matrix (a, b, c, d as plain numbers) into every track header."""
    data = bytearray(data)
    for start, _ in find_boxes(data, b"tkhd"):
        offset = start + (52 if data[start] == 1 else 40)
        a, b, c, d = (round(value * 65536) for value in matrix)
        data[offset : offset + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return bytes(data)


def clear_durations(data):
    """Set every duration that a header states to zero."""
    data = bytearray(data)
    for kind, offset in ((b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 16)):
        for start, _ in find_boxes(data, kind):
            if data[start] == 0:
                data[start + offset : start + offset + 4] = bytes(4)
    return bytes(data)


def set_edit_list(data, media_time):
    """Make the (single) edit list start at `media_time`, in units of the media."""
    data = bytearray(data)
    edited = False
    for start, _ in find_boxes(data, b"elst"):
        if data[start] == 0:
            data[start + 12 : start + 16] = struct.pack(">i", media_time)
            edited = True
    if not edited:
        raise ValueError("The file has no edit list of version 0.")
    return bytes(data)


def claim_size(data, width, height):
    """Write another picture size into the sample entries and track headers."""
    data = bytearray(data)
    for start, _ in find_boxes(data, b"tkhd"):
        offset = start + (88 if data[start] == 1 else 76)
        data[offset : offset + 8] = struct.pack(">II", min(width, 65535) << 16, min(height, 65535) << 16)
    for start, _ in find_boxes(data, b"stsd"):
        entry = start + 8
        data[entry + 32 : entry + 36] = struct.pack(">HH", width & 0xFFFF, height & 0xFFFF)
    return bytes(data)


def claim_samples(data, count):
    """Write another number of samples into the tables that count them."""
    data = bytearray(data)
    for start, _ in find_boxes(data, b"stsz"):
        data[start + 8 : start + 12] = struct.pack(">I", count)
    for start, _ in find_boxes(data, b"stts"):
        data[start + 8 : start + 12] = struct.pack(">I", count)
    return bytes(data)


def point_outside(data, path):
    """Make the data reference of every track name another file."""
    data = bytearray(data)
    for start, end in find_boxes(data, b"dref"):
        entry = start + 8
        size = struct.unpack(">I", data[entry : entry + 4])[0]
        if entry + size <= end:
            data[entry + 4 : entry + 12] = b"alis" + bytes(4)  # not self-contained, so the name counts
    return bytes(data) + path.encode()
