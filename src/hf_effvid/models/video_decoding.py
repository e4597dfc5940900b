"""Decoding with PyAV: only the frames that are needed, one at a time, into a small array. No torch here."""

import bisect
import itertools
from dataclasses import dataclass, field

import numpy as np

from .video_container import (
    VideoInfo,
    check_pixels,
    describe,
    native_errors,
    open_container,
)
from .video_errors import VideoError, VideoNotReadable, VideoTooLarge
from .video_pixels import RgbConverter, orientation_of_frame, output_size, resize
from .video_selection import check_selection, select_frames
from .video_timeline import NATIVE_ERRORS, read_frame_table


@dataclass
class Clip:
    """Decoded frames as numpy arrays: `pixels` (T, H, W, 3) uint8, `times` (T,) float64 seconds, and their origin."""

    pixels: np.ndarray
    times: np.ndarray
    indices: list
    info: VideoInfo
    notes: list = field(default_factory=list)
    num_decoded: int = 0


class VideoFile:
    """One opened source: its stream, its frame table, and a decoder that moves forward or jumps to a key frame."""

    def __init__(self, opened, limits, deadline):
        self.opened, self.limits, self.deadline = opened, limits, deadline
        self.num_decoded = 0
        self.num_damaged = 0
        self._beginning = None
        self.container, self.stream = open_container(opened, limits, deadline)

    def close(self):
        self._beginning = None
        self.container.close()

    def reopen(self):
        """Start anew at the beginning: the one way to rewind that every demuxer supports."""
        self.close()
        self.container, self.stream = open_container(self.opened, self.limits, self.deadline)

    def seek(self, stamp):
        """Go to a key frame at or before a time stamp. Returns False where the demuxer cannot."""
        self._beginning = None
        try:
            self.container.seek(stamp, stream=self.stream, backward=True)
        except VideoError:
            raise
        except NATIVE_ERRORS:
            return False
        return True

    def peek(self):
        """Decode the first frame, for what only frames tell (orientation); `from_start` still yields it."""
        frames = self.frames()
        first = next(frames, None)
        if first is None:
            hint = "The file is damaged, or its frames are above VideoLimits.max_pixels"
            raise VideoNotReadable(self.opened.name, "no frame can be decoded", hint)
        self._beginning = itertools.chain([first], frames)
        return first

    def from_start(self):
        """Yield all decoded frames from the first one on."""
        if self._beginning is None:
            self.reopen()
            return self.frames()
        beginning, self._beginning = self._beginning, None
        return beginning

    def frames(self):
        """Yield decoded frames from the current position. Damaged packets are counted and skipped."""
        packets = self.container.demux(self.stream)
        while True:
            self.deadline.check()
            try:
                packet = next(packets, None)
            except VideoError:
                raise
            except NATIVE_ERRORS:
                self.num_damaged += 1
                packet = None
            yield from self._decode(packet)
            if packet is None:
                return

    def _decode(self, packet):
        try:
            decoded = self.stream.codec_context.decode(packet if packet is not None and packet.size else None)
        except VideoError:
            raise
        except EOFError:
            return
        except NATIVE_ERRORS:
            self.num_damaged += 1
            return
        for frame in decoded:
            self.deadline.check()
            self.num_decoded += 1
            if self.num_decoded > self.limits.max_decoded_frames:
                found = f"more than {self.limits.max_decoded_frames} frames to decode"
                raise VideoTooLarge(self.opened.name, found, "Shorten the selection, or raise max_decoded_frames")
            check_pixels(frame.width, frame.height, self.opened.name, self.limits)
            self.num_damaged += bool(frame.is_corrupt)
            yield frame


def probe(opened, limits, deadline):
    """Describe a source: returns (VideoFile, FrameTable, VideoInfo, Orientation). The caller closes the VideoFile."""
    video = VideoFile(opened, limits, deadline)
    try:
        with native_errors(opened.name):
            table = read_frame_table(video.container, video.stream, opened, limits, deadline)
            video.reopen()
            first = video.peek()
            orientation = orientation_of_frame(first)
            return (
                video,
                table,
                describe(video.container, video.stream, table, first, orientation, opened),
                orientation,
            )
    except BaseException:
        video.close()
        raise


def read_clip(opened, limits, deadline, size=None, **selection):
    """Read the selected frames of an opened source.

    Args:
        opened: The `SourceFile`.
        limits: The `VideoLimits`.
        deadline: The `Deadline`.
        size: None, shorter side, or (height, width).
        selection: Arguments of `select_frames`.

    Returns:
        A `Clip`.
    """
    check_selection(**{name: selection.get(name) for name in SELECTION})
    video, table, info, orientation = probe(opened, limits, deadline)
    try:
        indices, notes = select_frames(info, table.times, **selection)
        with native_errors(opened.name):
            return _collect(video, table, info, orientation, indices, notes, size)
    finally:
        video.close()


SELECTION = ("num_frames", "indices", "start", "end", "target_fps", "sampler")


def _collect(video, table, info, orientation, indices, notes, size):
    wanted = sorted(set(indices))
    store, slots, to_rgb = None, {}, RgbConverter()
    for index, frame in pick_frames(video, table, wanted):
        pixels = orientation.apply(to_rgb(frame))
        if store is None:
            height, width = output_size(pixels.shape[0], pixels.shape[1], size)
            store = allocate(len(wanted), height, width, len(indices), video.opened.name, video.limits)
        elif size is None and pixels.shape[:2] != store.shape[1:3]:
            notes.append(f"frame {index} has {pixels.shape[1]}x{pixels.shape[0]} pixels: resized like the first one")
        slot = slots.setdefault(index, len(slots))
        store[slot] = resize(pixels, *store.shape[1:3])
    if store is None:
        raise VideoNotReadable(video.opened.name, "no wanted frame can be decoded", "The file is damaged")
    return _assemble(video, info, indices, wanted, notes, table.times, store, slots)


def allocate(count, height, width, num_outputs, name, limits):
    """Return an empty (count, height, width, 3) array, if it is within the limits."""
    needed = max(count, num_outputs) * height * width * 3
    if needed > limits.max_output_bytes:
        found = f"{max(count, num_outputs)} frames of {width}x{height} need {needed} bytes"
        raise VideoTooLarge(name, found, "Pass size= or num_frames=, or raise VideoLimits.max_output_bytes")
    return np.empty((count, height, width, 3), dtype=np.uint8)


def _assemble(video, info, indices, wanted, notes, times, store, slots):
    """Put the frames in the wanted order; what could not be decoded is filled by its nearest earlier neighbour."""
    have = sorted(slots)
    missing = [index for index in wanted if index not in slots]
    if missing:
        notes.append(f"truncated or damaged: {len(missing)} of {len(wanted)} frames replaced by their neighbours")
    if video.num_damaged:
        notes.append(f"damaged: {video.num_damaged} packets or frames with errors")
    actual = [have[max(bisect.bisect_right(have, index) - 1, 0)] for index in indices]
    order = [slots[index] for index in actual]
    pixels = store if order == list(range(len(store))) else store[order]
    return Clip(pixels, times[actual], actual, info, notes, video.num_decoded)


_SHORT_JUMP = 4  # frames that are cheaper to decode than a seek and a flushed decoder
_BLIND_JUMP = 100  # without a list of key frames a jump may land far back


def pick_frames(video, table, wanted):
    """Yield (index, frame) for the sorted `wanted` indices, decoding as little as the key frames allow.

    A frame that cannot be decoded is left out. If an index comes twice, the later frame is the right one.
    """
    if not table.unique:
        yield from _pick_by_counting(video, wanted)
        return
    targets = [int(table.pts[index]) for index in wanted]
    # With estimated time stamps the nearest frame counts, with listed ones only the very frame.
    tolerance = 0 if table.exact else int(table.pts[-1] - table.pts[0]) // max(2 * len(table.pts), 1)
    position, setback, jumped_to = 0, 0, None
    while position < len(wanted):
        jumped_to = _key_before(table, targets[position], setback)
        jumped = unsettled = jumped_to is not None and video.seek(jumped_to)
        if jumped_to is not None and not jumped:
            setback = len(table.pts)  # no seeking in this file: read on from the beginning
        last = None
        for frame in video.frames() if jumped else video.from_start():
            if frame.pts is None or (last is not None and frame.pts <= last):
                # Time stamps that do not grow identify nothing: count instead. What was yielded is yielded anew.
                yield from _pick_by_counting(video, wanted)
                return
            last = frame.pts
            if unsettled and last > targets[position] + tolerance:
                break
            unsettled = False
            while table.exact and targets[position] < last:
                position += 1  # that frame was not decodable
                if position == len(wanted):
                    return
            while last >= targets[position] - tolerance:
                yield wanted[position], frame
                position += 1
                if position == len(wanted):
                    return
            if _worth_a_jump(table, last, targets[position], setback, jumped_to):
                break
        else:
            if not jumped:
                return  # the end of the stream
            unsettled = True
        if unsettled:
            # The demuxer landed behind the wanted frame, as transport streams do: aim further back, from now on.
            setback = 2 * setback + 1


def _key_before(table, target, setback):
    """Return the time stamp to seek to for a frame, or None where the beginning is as good.

    That is the last key frame before it or, with a setback, one so many key frames earlier. Without a list of key
    frames it is the frame itself (the demuxer knows what lies before), or one so many tens of frames earlier.
    """
    if table.exact:
        rank = int(np.searchsorted(table.keys, target, side="right")) - 1 - setback
        target = int(table.keys[rank]) if rank >= 0 else None
    elif setback:
        rank = int(np.searchsorted(table.pts, target)) - 10 * setback
        target = int(table.pts[rank]) if rank >= 0 else None
    return target if target is not None and target > int(table.pts[0]) else None


def _worth_a_jump(table, last, target, setback, jumped_to):
    """Whether a key frame lies so far ahead of the last decoded frame that jumping saves decoding.

    Never twice to the same place: a demuxer that lands earlier than asked would otherwise do so forever.
    """
    key = _key_before(table, target, setback)
    if key is None or key <= last or (jumped_to is not None and key <= jumped_to):
        return False
    skipped = int(np.searchsorted(table.pts, key)) - int(np.searchsorted(table.pts, last))
    return skipped > (_SHORT_JUMP if table.exact else _BLIND_JUMP)


def _pick_by_counting(video, wanted):
    """Without usable time stamps the order of the decoded frames is the only index."""
    position = 0
    for index, frame in enumerate(video.from_start()):
        if wanted[position] == index:
            yield index, frame
            position += 1
            if position == len(wanted):
                return
