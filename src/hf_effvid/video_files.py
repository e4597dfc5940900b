"""Which files in a folder are taken for videos. A file that is named directly is opened whatever it is called."""

VIDEO_SUFFIXES = tuple(
    ".mp4 .m4v .mov .mkv .webm .avi .ts .mts .m2ts .mpg .mpeg .wmv .asf .flv .f4v .ogv .3gp .3g2 .gif .vob .y4m .mxf".split()
)
