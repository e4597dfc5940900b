"""What staging, verification and cards have to know about a task; `published_tasks` finds the one of a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..evaluation.results import Metric


NOT_RECORDED = "not recorded"


class ModelInput(NamedTuple):
    """An input that a model can be asked with.

    Attributes:
        shape: of the tensor.
        name: what the model calls it; None for its `main_input_name`.
    """

    shape: tuple[int, ...]
    name: str | None = None


class Probes(NamedTuple):
    """What a pipeline is given to show that it works.

    Attributes:
        files: their paths.
        options: of the call.
    """

    files: list[str]
    options: dict


class Measured(NamedTuple):
    """What was measured anew on somebody's videos.

    Attributes:
        metrics: the numbers.
        num_failed: videos that could not be read.
    """

    metrics: Sequence[Metric]
    num_failed: int = 0


class PublishedTask:
    """One task. Subclasses fill in everything.

    Attributes:
        name: what the Hub and `pipeline()` call it.
        auto_class: name of the class of transformers that opens a checkpoint.
        outputs: the model's outputs that are compared with the original's, side by side along the last dimension.
        steps: what `fresh_process.py` does with a whole checkpoint, besides comparing outputs.
        usage: template of the card's section on use.
        view_name: what the input of `view` is called where its cost is stated.
        default_limitations, default_intended_use: what every card says, and what one says whose publisher does not.
    """

    name: str
    auto_class: str
    outputs: tuple[str, ...]
    steps: tuple[str, ...]
    usage: str
    view_name: str
    default_limitations: tuple[str, ...]
    default_intended_use: str

    def load_model(self, name: str, trust_remote_code: bool = False):
        """The model of a folder or Hub id; typed errors of one line."""
        raise NotImplementedError

    def reference_input(self, config, processor) -> ModelInput:
        """A small input, whose answer is recorded and compared."""
        raise NotImplementedError

    def view(self, config, processor) -> ModelInput:
        """The input that costs are stated for."""
        raise NotImplementedError

    def write_probes(self, checkpoint: Path, folder: Path) -> Probes:
        """Files for the pipeline of a checkpoint, written into a folder."""
        raise NotImplementedError

    def own_answers(self, folder: Path, probes: Probes) -> list | None:
        """What the pipeline of this process answers; None where nothing compares with that of a stranger."""
        return None

    def load_data(self, source, split: str | None = None, **options):
        """Somebody's videos, as `measure` takes them; options are those of `load_video_dataset`, what a task has no use for is left out."""
        raise NotImplementedError

    def measure(self, folder, data, split=None, max_videos=None, claim=None, **options) -> Measured:
        """Accuracy on somebody's videos, measured as a `Claim` says it was."""
        raise NotImplementedError

    def summary(self, config) -> str:
        """One sentence for a card without one (Markdown)."""
        raise NotImplementedError

    def recipe(self, config, processor) -> str:
        """How it looks at a video, in a paragraph or two (Markdown)."""
        raise NotImplementedError


def size_text(size) -> str:
    """`{"height": 48, "width": 48}` and its kin in words."""
    if size is None:
        return NOT_RECORDED
    fields = {name: number for name, number in dict(size).items() if number}
    if set(fields) == {"height", "width"}:
        return f"{fields['height']} x {fields['width']}"
    return ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in fields.items())


def spread_evenly(total: int, count: int) -> list[int]:
    """So many of `total` positions, with equal distances."""
    return [(2 * number + 1) * total // (2 * count) for number in range(count)]
