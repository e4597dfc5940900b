"""The `effvid` command: one short function per job, each calling one public function of the package.

Data loading, training and plotting libraries are imported by the command that needs them.
"""

# in the order of `effvid --help`
from . import videos, detect, cache, train, measure, select, study, budget, compress, distill, search, publish  # noqa: F401, I001
from .application import app, main


__all__ = ["app", "main"]
