"""Writing small videos with PyAV."""

import io
import os
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def pattern(width, height, index, seed=0):
    """Draw an (H, W, 3) uint8 frame: gradients, a moving bar and noise, different for every index."""
    generator = np.random.default_rng([seed, index, width, height])
    ys, xs = np.mgrid[:height, :width]
    frame = np.empty((height, width, 3), np.int16)
    frame[..., 0] = xs * 255 // max(width - 1, 1)
    frame[..., 1] = ys * 255 // max(height - 1, 1)
    frame[..., 2] = (index * 37) % 256
    left = (index * 5) % max(width, 1)
    frame[:, left : left + max(width // 8, 1)] = (255, 255 - (index * 29) % 256, 0)
    frame += generator.integers(-12, 13, frame.shape, dtype=np.int16)
    return np.clip(frame, 0, 255).astype(np.uint8)


def encode(
    container="mp4",
    codec="libx264",
    pixel_format="yuv420p",
    size=(64, 48),
    num_frames=24,
    rate=12,
    options=None,
    container_options=None,
    times=None,
    prepare=None,
    frames=None,
    color_range=None,
    colorspace=None,
    seed=0,
):
    """Encode a video and return its bytes.

    Args:
        container: FFmpeg's name of the muxer.
        codec: Name of the encoder.
        pixel_format: Pixel format given to the encoder.
        size: (width, height).
        num_frames: Number of frames.
        rate: Frames per second.
        options: Encoder options.
        container_options: Muxer options.
        times: Seconds of each frame; None for a constant rate.
        prepare: Called with (container, stream) before the first frame.
        frames: (H, W, 3) arrays, or PyAV frames in the pixel format, instead of the pattern.
        color_range: 1 limited, 2 full.
        colorspace: 1 for BT.709, 5 or 6 for BT.601, 9 for BT.2020.
        seed: Seed of the pattern.
    """
    os.environ.setdefault("SVT_LOG", "0")
    count = num_frames if times is None else len(times)
    pictures = frames if frames is not None else (pattern(*size, i, seed) for i in range(count))
    with tempfile.TemporaryDirectory() as folder:
        # A real file: moving the index of an MP4 to its front reopens it by name.
        path = Path(folder, "video")
        with av.open(
            str(path), "w", format=container, container_options={"fflags": "+bitexact", **(container_options or {})}
        ) as output:
            stream = output.add_stream(codec, rate=rate, options={**_steady(codec), **(options or {})})
            stream.width, stream.height, stream.pix_fmt = size[0], size[1], pixel_format
            stream.codec_context.thread_count = 1
            if color_range is not None:
                stream.codec_context.color_range = color_range
            if colorspace is not None:
                stream.codec_context.colorspace = colorspace
            if times is not None:
                stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            if prepare is not None:
                prepare(output, stream)
            output.start_encoding()
            _write(output, stream, pictures, pixel_format, times, colorspace)
        return path.read_bytes()


def _steady(codec):
    """Options that make an encoder write the same bytes every time, and nothing to the terminal."""
    if codec == "libx265":
        return {"x265-params": "log-level=none:pools=1:frame-threads=1"}
    if codec == "libx264":
        return {"threads": "1", "qp": "30"}  # its rate control by macroblock tree is not quite reproducible
    return {"threads": "1"}


def _write(output, stream, pictures, pixel_format, times, colorspace):
    for index, picture in enumerate(pictures):
        frame = picture
        if isinstance(picture, np.ndarray):
            frame = _to_frame(picture, pixel_format)
        if colorspace is not None:
            frame.colorspace = colorspace
        if times is not None:
            frame.pts, frame.time_base = round(times[index] * 1000), Fraction(1, 1000)
        else:
            frame.pts = index
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def _to_frame(picture, pixel_format):
    if pixel_format != "rgb8":
        return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixel_format)
    # not with FFmpeg, whose dithering begins with whatever its buffer held in some versions: 3 bits of red, 3 of green, 2 of blue
    red, green, blue = (picture[..., channel].astype(np.uint8) for channel in range(3))
    packed = (red & 0b11100000) | (green >> 3 & 0b00011100) | blue >> 6
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(packed), format="rgb8")


def remux(data, container):
    """Put the encoded packets of a video into another container."""
    target = io.BytesIO()
    with (
        av.open(io.BytesIO(data)) as source,
        av.open(target, "w", format=container, container_options={"fflags": "+bitexact"}) as output,
    ):
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    return target.getvalue()


def encode_audio(container="mp4", codec="aac", seconds=1.0):
    """Encode a tone without any video."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        add_tone(output, output.add_stream(codec, rate=48000), seconds)
    return target.getvalue()


def add_tone(output, stream, seconds):
    """Write `seconds` of a 440 Hz tone to an audio stream."""
    samples = np.sin(2 * np.pi * 440 * np.arange(int(48000 * seconds)) / 48000).astype(np.float32) * 0.2
    frame = av.AudioFrame.from_ndarray(np.stack([samples, samples]), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    fitted = av.AudioResampler(format=stream.codec_context.format, layout="stereo", rate=48000, frame_size=1024)
    for part in fitted.resample(frame):
        output.mux(stream.encode(part))
    output.mux(stream.encode(None))


def encode_two_videos(small_first):
    """Encode an MP4 with two video streams of different sizes and an audio stream."""
    target = io.BytesIO()
    sizes = ((32, 24), (96, 72)) if small_first else ((96, 72), (32, 24))
    with av.open(target, "w", format="mp4", container_options={"fflags": "+bitexact"}) as output:
        streams = []
        for width, height in sizes:
            stream = output.add_stream("libx264", rate=12, options=_steady("libx264"))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        tone = output.add_stream("aac", rate=48000)
        for index in range(12):
            for stream, (width, height) in zip(streams, sizes, strict=True):
                frame = av.VideoFrame.from_ndarray(pattern(width, height, index), format="rgb24")
                frame.pts = index
                output.mux(stream.encode(frame.reformat(format="yuv420p")))
        for stream in streams:
            output.mux(stream.encode(None))
        add_tone(output, tone, 1.0)
    return target.getvalue()


def encode_with_cover(cover_first):
    """Encode an MP4 whose PNG cover art comes before (or after) the video."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", container_options={"fflags": "+bitexact"}) as output:

        def add_cover():
            cover = output.add_stream("png", rate=1)
            cover.width, cover.height, cover.pix_fmt = 200, 200, "rgb24"
            cover.disposition = av.stream.Disposition.attached_pic.value  # PyAV 16 takes integers only
            return cover

        def add_video():
            stream = output.add_stream("libx264", rate=12, options=_steady("libx264"))
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            return stream

        cover = add_cover() if cover_first else None
        video = add_video()
        cover = cover or add_cover()
        picture = av.VideoFrame.from_ndarray(pattern(200, 200, 99), format="rgb24")
        packets = cover.encode(picture) + cover.encode(None)
        for index in range(12):
            frame = av.VideoFrame.from_ndarray(pattern(64, 48, index), format="rgb24").reformat(format="yuv420p")
            frame.pts = index
            packets += video.encode(frame)
        output.mux(packets + video.encode(None))
    return target.getvalue()
