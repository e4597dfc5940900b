# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""How far detection has come, on stderr."""

from transformers.utils import logging


class DetectionProgress:
    """A bar on stderr: seconds of the one video, or videos.

    Args:
        total: how many videos there are, if known.
        wanted: True or False; None: on a terminal, after two seconds.
    """

    def __init__(self, total, wanted):
        self.by_seconds = total == 1
        options = {"unit": "s", "unit_scale": True} if self.by_seconds else {"unit": "video", "total": total}
        disable = None if wanted is None else not wanted
        self.bar = logging.tqdm(disable=disable, delay=2.0 if wanted is None else 0.0, desc="detecting", **options)
        self.seconds, self.total = 0.0, None  # the bar itself has no total where bars are switched off

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.bar.close()

    def lasts(self, seconds):
        """The video at hand has so many seconds, if known."""
        if self.by_seconds and seconds:
            self.bar.total = self.total = round(seconds, 1)

    def reached(self, seconds):
        """A window that ends there is done."""
        seconds = round(min(seconds, self.total or seconds), 1)
        if self.by_seconds:
            self.bar.update(seconds - self.seconds)
            self.seconds = seconds

    def done(self):
        """A video is done."""
        if not self.by_seconds:
            self.bar.update(1)
        elif self.total:
            self.reached(self.total)


__all__ = ["DetectionProgress"]
