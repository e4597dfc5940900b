"""`python -m hf_effvid.cli`, as torchrun and subprocesses call it."""

import sys

from .application import main


if __name__ == "__main__":
    sys.argv[0] = "effvid"  # what the record of a number says
    main()
