"""The catalogue: every case is a name, a kind, a way to make its bytes, and what reading it must give."""

import functools
import io
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import av

from .encode import encode, encode_audio, encode_two_videos, encode_with_cover, pattern
from .mp4_edit import claim_samples, claim_size, clear_durations, point_outside, set_edit_list, set_matrix


FRAMES, ANY = "frames", "any"

ROTATIONS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
MIRRORS = {0: (-1, 0, 0, 1), 90: (0, -1, -1, 0), 180: (1, 0, 0, -1), 270: (0, 1, 1, 0)}


@dataclass(frozen=True)
class Case:
    """One awkward file.

    Attributes:
        name: Unique, also the file name (its suffix is part of the case).
        kind: The row of the coverage table.
        make: Returns the bytes.
        expect: `frames`, `any` (frames or a typed error), or the name of the only error that is right.
        num_frames: How many frames must be found, where that is known.
        size: (width, height) that must be found, where that is known.
    """

    name: str
    kind: str
    make: Callable
    expect: str = ANY
    num_frames: int | None = None
    size: tuple | None = None


def well_formed_cases():
    """Videos that are odd but right: each must give frames."""
    cases = []

    def add(name, kind, num_frames, size=(64, 48), make=None, **options):
        make = make or functools.partial(encode, size=size, num_frames=num_frames, **options)
        cases.append(Case(name, kind, make, FRAMES, num_frames, size))

    add("one_frame.mp4", "few frames", 1)
    add("two_frames.mp4", "few frames", 2)
    add("five_frames.webm", "few frames", 5, container="webm", codec="libvpx-vp9")
    _add_shapes(add)
    _add_pixel_formats(add)
    _add_clocks(add)
    for degrees, matrix in ROTATIONS.items():
        size = (48, 64) if degrees % 180 else (64, 48)
        add(f"rotated_{degrees}.mp4", "rotation", 8, size, make=_with_matrix(matrix))
    for degrees, matrix in MIRRORS.items():
        size = (48, 64) if degrees % 180 else (64, 48)
        add(f"mirrored_{degrees}.mp4", "mirrored", 8, size, make=_with_matrix(matrix))
    add("cover_first.mp4", "cover art", 12, make=lambda: encode_with_cover(True))
    add("cover_last.mp4", "cover art", 12, make=lambda: encode_with_cover(False))
    add("two_streams_small_first.mp4", "two video streams", 12, None, make=lambda: encode_two_videos(True))
    add("two_streams_large_first.mp4", "two video streams", 12, None, make=lambda: encode_two_videos(False))
    for name, make in CONTAINERS.items():
        add(f"container_{name}", "container", 24, make=make)
    add("wrong_suffix_is_webm.mp4", "wrong extension", 24, make=CONTAINERS["vp9.webm"])
    add("wrong_suffix_is_mp4.txt", "wrong extension", 24, make=CONTAINERS["h264.mp4"])
    add("wrong_suffix_is_avi.m3u8", "wrong extension", 24, make=CONTAINERS["mpeg4.avi"])
    return cases


def _add_shapes(add):
    add("odd_33x17_444.mp4", "odd size", 6, (33, 17), pixel_format="yuv444p")
    add("odd_63x47_vp9.webm", "odd size", 6, (63, 47), container="webm", codec="libvpx-vp9")
    add("odd_65x49_ffv1.mkv", "odd size", 6, (65, 49), container="matroska", codec="ffv1")
    add("one_pixel.mkv", "1x1", 3, (1, 1), container="matroska", codec="ffv1", pixel_format="yuv444p")
    add("one_pixel.gif", "1x1", 3, (1, 1), container="gif", codec="gif", pixel_format="rgb8")
    add("wide_16384x16.mp4", "very wide", 3, (16384, 16))
    add("tall_16x8192.mp4", "very wide", 3, (16, 8192))
    add("uhd_3840x2160.mp4", "large", 2, (3840, 2160), options={"preset": "ultrafast", "threads": "1"})
    interlaced = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
    add("interlaced_h264.mp4", "interlaced", 12, (64, 64), options=interlaced)
    add(
        "interlaced_mpeg2.ts",
        "interlaced",
        12,
        (64, 64),
        container="mpegts",
        codec="mpeg2video",
        rate=25,
        options={"flags": "+ildct+ilme"},
    )


def _add_pixel_formats(add):
    add("10_bit_h264.mp4", "10 bit", 6, pixel_format="yuv420p10le")
    add("10_bit_h265.mp4", "10 bit", 6, codec="libx265", pixel_format="yuv420p10le", colorspace=9, color_range=1)
    add("10_bit_422.mkv", "10 bit", 6, container="matroska", codec="ffv1", pixel_format="yuv422p10le")
    add("12_bit_420.mkv", "10 bit", 6, container="matroska", codec="ffv1", pixel_format="yuv420p12le")
    add("gray.mp4", "gray", 6, pixel_format="gray")
    add("gray_10_bit.mkv", "gray", 6, container="matroska", codec="ffv1", pixel_format="gray10le")
    add("alpha_qtrle.mov", "alpha", 6, container="mov", codec="qtrle", pixel_format="argb")
    add("alpha_ffv1.mkv", "alpha", 6, container="matroska", codec="ffv1", pixel_format="yuva420p")
    add("alpha_prores.mov", "alpha", 6, container="mov", codec="prores_ks", pixel_format="yuva444p10le")
    add("alpha_png.mov", "alpha", 6, container="mov", codec="png", pixel_format="rgba")
    add("444.mp4", "chroma", 6, pixel_format="yuv444p")
    add("422.mp4", "chroma", 6, pixel_format="yuv422p")
    add("411.mkv", "chroma", 6, container="matroska", codec="ffv1", pixel_format="yuv411p")
    add("rgb.mkv", "chroma", 6, container="matroska", codec="ffv1", pixel_format="bgr0")
    for colorspace, label in ((1, "bt709"), (5, "bt601"), (9, "bt2020")):
        for color_range, width in ((1, "limited"), (2, "full")):
            add(f"{label}_{width}.mp4", "colour", 6, colorspace=colorspace, color_range=color_range)
    add("mjpeg_full.avi", "colour", 6, container="avi", codec="mjpeg", pixel_format="yuvj420p")
    add("bt709_full_vp9.webm", "colour", 6, container="webm", codec="libvpx-vp9", colorspace=1, color_range=2)


def _add_clocks(add):
    uneven = [0, 0.1, 0.15, 0.5, 1.2, 1.25, 2.0, 2.04, 3.5]
    add("vfr.mp4", "variable rate", 9, times=uneven)
    add("vfr.mkv", "variable rate", 9, container="matroska", times=uneven)
    add("late_start.mkv", "variable rate", 4, container="matroska", times=[10.0, 10.1, 10.2, 10.3])
    add("b_frames.mp4", "B-frames", 24, options={"bf": "3", "g": "12"})
    negative = {"movflags": "negative_cts_offsets"}
    add("b_frames_negative.mp4", "B-frames", 24, options={"bf": "3", "g": "12"}, container_options=negative)
    add("b_frames_no_edit_list.mp4", "B-frames", 24, options={"bf": "2"}, container_options={"use_editlist": "0"})
    add("b_frames_negative.nut", "B-frames", 24, container="nut", codec="mpeg4", options={"bf": "2", "g": "9"})
    add("open_gop.mkv", "B-frames", 24, container="matroska", options={"bf": "3", "g": "8", "flags": "-cgop"})
    add("long_gop.mp4", "B-frames", 48, options={"g": "250", "bf": "0"})
    add("intra_only.mp4", "B-frames", 24, options={"g": "1"})
    add("edit_list_cut.mp4", "edit list", None, make=lambda: set_edit_list(encode(), 4 * 1024))
    add("edit_list_mid_gop.mp4", "edit list", None, make=lambda: set_edit_list(encode(options={"g": "250"}), 7 * 1024))
    add("no_duration.mp4", "missing duration", 24, make=lambda: clear_durations(encode()))
    add("live.mkv", "missing duration", 24, container="matroska", container_options={"live": "1"})
    add("live.webm", "missing duration", 24, container="webm", codec="libvpx", container_options={"live": "1"})
    add(
        "no_duration.flv",
        "missing duration",
        24,
        container="flv",
        container_options={"flvflags": "no_duration_filesize"},
    )
    add("raw.h264", "missing duration", 24, container="h264")


def _with_matrix(matrix):
    return lambda: set_matrix(encode(num_frames=8), matrix)


_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}

# Base files: each is also truncated and flipped.
CONTAINERS = {
    "h264.mp4": functools.partial(encode, options={"g": "12"}),
    "faststart.mp4": functools.partial(encode, options={"g": "12"}, container_options={"movflags": "faststart"}),
    "fragmented.mp4": functools.partial(encode, options={"g": "8"}, container_options=_FRAGMENTS),
    "hevc.mp4": functools.partial(encode, codec="libx265"),
    "av1.mp4": functools.partial(encode, codec="libsvtav1", size=(64, 48)),
    "vp8.webm": functools.partial(encode, container="webm", codec="libvpx"),
    "vp9.webm": functools.partial(encode, container="webm", codec="libvpx-vp9"),
    "h264.mkv": functools.partial(encode, container="matroska", options={"g": "12"}),
    "h264.ts": functools.partial(encode, container="mpegts", options={"g": "12"}),
    "mpeg4.avi": functools.partial(encode, container="avi", codec="mpeg4"),
    "h264.avi": functools.partial(encode, container="avi"),
    "mpeg1.mpg": functools.partial(encode, container="mpeg", codec="mpeg1video", rate=25),
    "h264.flv": functools.partial(encode, container="flv", options={"g": "12"}),
    "wmv2.asf": functools.partial(encode, container="asf", codec="wmv2"),
    "gif.gif": functools.partial(encode, container="gif", codec="gif", pixel_format="rgb8"),
}


@functools.cache
def base_file(name):
    """Return the bytes of a base file, encoded once per process."""
    return CONTAINERS[name]()


def broken_cases():
    """Files that are no video, lie about themselves, or want to harm."""
    empty = functools.partial(encode, num_frames=0)
    cases = [
        Case("zero_frames.mp4", "no frames", empty, "VideoEmpty"),
        Case("zero_frames.mkv", "no frames", functools.partial(empty, container="matroska"), "VideoEmpty"),
        Case("zero_frames.avi", "no frames", functools.partial(empty, container="avi", codec="mpeg4"), "VideoEmpty"),
        Case("audio_only.mp4", "audio only", encode_audio, "VideoEmpty"),
        Case("audio_only.mkv", "audio only", functools.partial(encode_audio, "matroska"), "VideoEmpty"),
        Case("audio_only.mp3", "audio only", functools.partial(encode_audio, "wav", "pcm_s16le"), "VideoEmpty"),
        Case("empty.mp4", "empty file", bytes, "VideoEmpty"),
        Case("text.mp4", "text file", lambda: b"This is no video.\n" * 200, "VideoNotReadable"),
        Case("html.mp4", "text file", lambda: b"<html><body>404 not found</body></html>" * 20, "VideoNotReadable"),
        Case("zeros.mp4", "text file", lambda: bytes(4096), "VideoNotReadable"),
        Case("noise.avi", "text file", lambda: random.Random(1).randbytes(65536), "VideoNotReadable"),
        Case("zip.mp4", "text file", _zip_bomb, "VideoNotReadable"),
    ]
    for name, text in PLAYLISTS.items():
        cases.append(Case(name, "playlist", functools.partial(bytes, text, "utf-8"), "VideoSourceNotAllowed"))
    cases += [
        Case("bomb_4096x4096.mp4", "bomb", bomb, "VideoTooLarge"),
        Case("bomb_4096x4096.ts", "bomb", functools.partial(bomb, container="mpegts"), "VideoTooLarge"),
        Case("bomb_4096x4096.h264", "bomb", functools.partial(bomb, container="h264"), "VideoTooLarge"),
        Case("bomb_4096x4096.flv", "bomb", functools.partial(bomb, container="flv"), "VideoTooLarge"),
        Case("bomb_4096x4096.gif", "bomb", functools.partial(bomb, container="gif", codec="gif"), "VideoTooLarge"),
        Case("claims_65000x65000.mp4", "lying header", lambda: claim_size(base_file("h264.mp4"), 65000, 65000)),
        Case("claims_4e9_samples.mp4", "lying header", lambda: claim_samples(base_file("h264.mp4"), 2**32 - 1)),
        Case("claims_1e6_samples.mp4", "lying header", lambda: claim_samples(base_file("h264.mp4"), 10**6)),
        Case("outside_reference.mp4", "lying header", lambda: point_outside(base_file("h264.mp4"), "/etc/passwd")),
    ]
    for container, suffix in (("h264", "h264"), ("mpegts", "ts"), ("matroska", "mkv")):
        name = f"size_change.{suffix}"
        cases.append(Case(name, "size change", functools.partial(_size_change, container), FRAMES))
    cases.append(Case("size_change.mpg", "size change", functools.partial(_size_change, "mpeg", "mpeg1video"), FRAMES))
    return cases


PLAYLISTS = {
    "playlist.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "playlist.mp4": "#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
    "concat.txt": "ffconcat version 1.0\nfile '/etc/passwd'\n",
    "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>file:///etc/</BaseURL></MPD>',
}


def bomb(container="mp4", codec="libx264", num_frames=6, side=4096):
    """Encode a few equal 4096x4096 frames: kilobytes that unpack to hundreds of megabytes."""
    flat = av.VideoFrame.from_ndarray(pattern(1, 1, 0).repeat(side, 0).repeat(side, 1), format="rgb24")
    frame = flat.reformat(format="rgb8" if codec == "gif" else "yuv420p")
    options = {"preset": "ultrafast", "threads": "1"} if codec == "libx264" else {}
    return encode(container, codec, frame.format.name, (side, side), options=options, frames=[frame] * num_frames)


def _zip_bomb():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("video.mp4", bytes(1 << 20))
    return target.getvalue()


def _size_change(container, codec="libx264"):
    """Join two encodings of different size; Matroska, which cannot be joined by bytes, gets the packets of both."""
    small = dict(codec=codec, size=(64, 48), num_frames=8, rate=25)
    large = dict(codec=codec, size=(96, 80), num_frames=8, rate=25)
    if container != "matroska":
        return encode(container, **small) + encode(container, **large)
    target = io.BytesIO()
    parts = [io.BytesIO(encode("h264", **part)) for part in (small, large)]
    with av.open(target, "w", format="matroska", container_options={"fflags": "+bitexact"}) as output:
        with av.open(parts[0]) as first:
            stream = output.add_stream_from_template(first.streams.video[0])
        index = 0
        for part in parts:
            part.seek(0)
            with av.open(part) as source:
                for packet in source.demux(video=0):
                    if packet.size:
                        packet.stream, packet.time_base = stream, Fraction(1, 1000)
                        packet.pts = packet.dts = index * 40
                        index += 1
                        output.mux(packet)
    return target.getvalue()


def truncations():
    """Every base file cut at every 2 %."""
    for name in CONTAINERS:
        for percent in range(2, 100, 2):
            make = functools.partial(_truncated, name, percent)
            yield Case(f"truncated_{percent:02d}_{name}", f"truncated {name}", make)


def _truncated(name, percent):
    data = base_file(name)
    return data[: len(data) * percent // 100]


def bit_flips(per_container=500):
    """Every base file with flipped bits: one bit in even cases, eight in odd ones."""
    for name in CONTAINERS:
        for index in range(per_container):
            make = functools.partial(_flipped, name, index)
            yield Case(f"flipped_{index:03d}_{name}", f"bit flips {name}", make)


def _flipped(name, index):
    data = bytearray(base_file(name))
    generator = random.Random(f"{name}/{index}")
    # Headers are a small part of a file and the better half of the trouble: every other case aims at them.
    reach = len(data) if index % 4 < 2 else min(len(data), 600)
    for _ in range(8 if index % 2 else 1):
        data[generator.randrange(reach)] ^= 1 << generator.randrange(8)
    return bytes(data)


def all_cases():
    """Return every case, in a fixed order."""
    return [*well_formed_cases(), *broken_cases(), *truncations(), *bit_flips()]


def sample(name):
    """Return the `default`, `ci` or `full` sample: all single files, and an even share of each kind of damage."""
    single = [*well_formed_cases(), *broken_cases()]
    damaged = {}
    for case in (*truncations(), *bit_flips()):
        damaged.setdefault(case.kind, []).append(case)
    wanted = {"default": 90, "ci": 1500 - len(single), "full": sum(map(len, damaged.values()))}[name]
    chosen = list(single)
    for done, cases in enumerate(sorted(damaged.values(), key=len)):
        share = min((wanted + len(single) - len(chosen)) // (len(damaged) - done), len(cases))
        chosen += [cases[(2 * i + 1) * len(cases) // (2 * share)] for i in range(share)]
    return chosen
