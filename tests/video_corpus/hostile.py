"""Files around videos that want to harm: weight files, annotation lists and configurations of a stranger's repository.

`SAFETENSORS` are for whatever loads weights, `ANNOTATIONS` for the loaders of lists, `LABELS` and `hostile_config` for
whatever writes cards, pages and subtitles. Every entry is made here, byte by byte; nothing is downloaded.
"""

import json
import struct


def _safetensors(header, body=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def _tensor(begin, end, shape=(4,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


# name -> bytes of a file that no loader may accept, or take gigabytes for
SAFETENSORS = {
    "empty": b"",
    "seven_bytes": b"\0" * 7,
    "header_of_2_to_the_63": _safetensors({}, length=2**63),
    "header_of_4_gigabytes": _safetensors({}, length=2**32),
    "header_longer_than_the_file": _safetensors({"a": _tensor(0, 16)}, bytes(16), length=10**6),
    "no_json": _safetensors(b"{" * 64),
    "not_utf8": _safetensors(b'{"\xff\xfe": 1}'),
    "a_list": _safetensors(b"[1, 2]"),
    "deeply_nested": _safetensors(b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
    "body_cut": _safetensors({"a": _tensor(0, 16)}, bytes(7)),
    "body_too_long": _safetensors({"a": _tensor(0, 16)}, bytes(64)),
    "overlap": _safetensors({"a": _tensor(0, 16), "b": _tensor(8, 24)}, bytes(24)),
    "hole": _safetensors({"a": _tensor(0, 16), "b": _tensor(32, 48)}, bytes(48)),
    "end_before_begin": _safetensors({"a": _tensor(16, 0)}, bytes(16)),
    "negative_offset": _safetensors({"a": _tensor(-16, 0)}, bytes(16)),
    "shape_of_2_to_the_62": _safetensors({"a": _tensor(0, 16, shape=(2**62,))}, bytes(16)),
    "shape_that_overflows": _safetensors({"a": _tensor(0, 16, shape=(2**32, 2**32, 2**32))}, bytes(16)),
    "shape_and_size_disagree": _safetensors({"a": _tensor(0, 16, shape=(5,))}, bytes(16)),
    "unknown_type": _safetensors({"a": _tensor(0, 16, dtype="F31")}, bytes(16)),
    "a_pickle": b"\x80\x04\x95\x1e\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94.",
}

_ESCAPES = (
    "../../../etc/passwd",
    "/etc/passwd",
    "clips/../../outside.mp4",
    "..\\..\\windows\\win.ini",
    "file:///etc/passwd",
    "http://169.254.169.254/latest/meta-data",
    "~/.ssh/id_rsa",
    "clip.mp4\0.txt",
)

# file name -> text whose paths lead out of the folder of the list
ANNOTATIONS = {
    **{f"escape_{index}.csv": f"path,label\n{escape},a\n" for index, escape in enumerate(_ESCAPES)},
    **{f"escape_{index}.txt": f"{escape} 0\n" for index, escape in enumerate(_ESCAPES)},
    "metadata.csv": "file_name,label\n../outside.mp4,a\n",
    "bomb.csv": "path,label\n" + "a" * 5_000_000 + ".mp4,b\n",
    "no_columns.csv": "\n\n\n",
    "formula.csv": 'path,label\n=HYPERLINK("http://evil.example"),"=cmd|\' /C calc\'!A0"\n',
}

# labels as a stranger's config may hold them: each must come out as text, wherever labels are shown
LABELS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "[click](javascript:alert(1))",
    "![x](http://evil.example/pixel.png)",
    "| a | table | row |\n| - | - | - |",
    "---\nlicense: mit\n---",
    "{{ 7 * 7 }}{% for x in ().__class__.__base__.__subclasses__() %}{% endfor %}",
    "`code` *bold* ~~strike~~",
    "00:00:00,000 --> 99:00:00,000\n<font color=red>subtitle</font>",
    "\u202eright to left\u202c",
    "a\x00b\x1b[31m",
    "x" * 10_000,
)


def hostile_config(model_type="videomae"):
    """Return the JSON text of a model configuration whose labels carry markup."""
    names = dict(enumerate(LABELS))
    config = {"model_type": model_type, "id2label": names, "label2id": {name: index for index, name in names.items()}}
    return json.dumps(config)
