"""The application that commands are added to, and the entry point around it.

Exit codes: 0 done, 1 bad input (one line on stderr; the whole traceback with EFFVID_DEBUG=1), 2 wrong usage.
"""

import os
import sys
from typing import Annotated

import typer
from huggingface_hub.errors import StrictDataclassError

from ..version import __version__


app = typer.Typer(
    name="effvid",
    help="Efficient video models for Hugging Face: classify, check, train, evaluate, convert, publish.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit()


def main() -> None:
    """Entry point: turns what a user did wrong into one line and exit code 1; everything else keeps its traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show is shown escaped
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("EFFVID_DEBUG") == "1":
        app(prog_name="effvid")
        return
    try:
        app(prog_name="effvid")
    except BrokenPipeError:  # `effvid ... | head`: whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError, ImportError, KeyError, StrictDataclassError) as error:
        text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
        print(f"effvid: {text or type(error).__name__}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("effvid: interrupted", file=sys.stderr)
        sys.exit(130)
