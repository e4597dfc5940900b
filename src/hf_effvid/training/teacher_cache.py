"""`cache_teacher_outputs`: a teacher looks at every view of a data set once, and its answers are stored.

```python
teacher = Teacher.open("large/model", "vit", class_names)
store = cache_teacher_outputs(teacher, rows, "answers/vit", role="vit", views=4, augmentation="light")
```
"""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from ..data.loading import label_names
from ..data.row_keys import row_key
from ..data.shared_views import SharedViewReader, ViewSettings
from ..data.teacher_outputs import OUTPUTS, TeacherOutputStore, TeacherOutputWriter
from ..models.video_errors import VideoError, VideoLimits
from ..weights_fingerprint import weights_fingerprint


logger = logging.getLogger(__name__)

# what of a processor's recipe decides how a training clip looks to its model
_RECIPE_FIELDS = (
    "num_frames sampling frame_stride target_fps short_clip_policy do_resize size resample do_center_crop crop_size do_rescale "
    "rescale_factor do_normalize image_mean image_std"
).split()


def cache_teacher_outputs(
    teacher,
    rows,
    folder,
    *,
    role: str,
    views: int,
    view_seed: int = 0,
    augmentation="light",
    class_names: Sequence[str] | None = None,
    horizontal_flips: bool | None = None,
    decode_size: int | None = None,
    outputs: Iterable[str] = OUTPUTS,
    grid: tuple[int, int, int] | None = None,
    dtype: str = "float16",
    batch_size: int = 8,
    num_workers: int = 0,
    limits: VideoLimits | None = None,
    on_error: str = "skip",
    progress: bool = True,
) -> TeacherOutputStore:
    """Ask a teacher about every view of a data set, but for what it was asked before.

    Stopped at any moment and called again, it goes on where it was. The answers serve every training with the same
    views: the same augmentation, `view_seed`, `decode_size` and flips, and at most as many views.

    Args:
        teacher: a `Teacher`: `teacher(pixel_values)` gives logits in the order of the classes, features and embeddings, and
            `teacher.processor` is its recipe.
        rows: a `datasets.Dataset` with columns "video" and "label", or a list of such rows.
        folder: where the answers go; one for each teacher.
        role: "vit" or "cnn".
        views: number of random views of each clip.
        view_seed, decode_size, horizontal_flips: of the views, see `ViewSettings.make`.
        augmentation: an `AugmentationConfig` or the name of a preset, without mixup and cutmix.
        class_names: the classes in the order of the student; default: those of the data set.
        outputs: what is stored, of `OUTPUTS`.
        grid: (T, H, W) to which features are averaged first, so that they take less room. What is computed of them stays the
            same where the student has this very grid; None: as they are.
        dtype: stored numbers, "float16" or "float32".
        batch_size: clips per pass of the teacher.
        num_workers: processes that decode; 0: this one.
        limits: what one file may cost.
        on_error: "skip" records what cannot be read in `errors` of the store, "raise" stops at the first.
        progress: show a progress bar.

    Returns:
        The store.

    Raises:
        TeacherCacheError: the folder holds answers to something else (the message says what differs), or something else.
        ValueError: a stream, mixed clips, or arguments that are none of the possible ones.
        VideoError: a video cannot be read, with `on_error="raise"`.
    """
    outputs = [name for name in OUTPUTS if name in set(_known("outputs", outputs, OUTPUTS))]
    _known("dtype", [dtype], ("float16", "float32"))
    _known("on_error", [on_error], ("skip", "raise"))
    if not hasattr(rows, "__len__"):
        raise ValueError("a stream cannot be asked about once and for all: load the data set with streaming=False")
    if class_names is None:
        class_names = label_names(rows) if getattr(rows, "features", None) else getattr(teacher, "class_names", ())
    if teacher.processor is None:
        raise ValueError(
            "the teacher has no processor, which says what its clips look like: open it with processor=..."
        )
    if views is None:
        raise ValueError("answers to new views in every epoch cannot be stored: pass `views`, the number of them")
    settings = ViewSettings.make(
        [teacher.processor], augmentation, class_names, views, view_seed, decode_size, horizontal_flips
    )
    if settings.augmentation.mixes:
        raise ValueError("mixed clips are new in every epoch: set mixup_alpha=0 and cutmix_alpha=0 to store answers")
    recipe = {
        "role": role,
        "teacher": teacher_identity(teacher),
        "processor": processor_identity(teacher.processor),
        "class_names": list(class_names),
        "views": settings.identity(),
        "outputs": outputs,
        "grid": list(grid) if grid else None,
        "dtype": dtype,
    }
    about = {"name": getattr(teacher, "name", None), "license": getattr(teacher, "license", None)}
    with TeacherOutputWriter(folder, recipe, about) as writer:
        unasked = UnaskedViews(rows, writer, role, teacher.processor, settings, limits, on_error)
        loader = DataLoader(unasked, batch_size, num_workers=num_workers, collate_fn=list)
        for items in _shown(loader, len(unasked), progress):
            _ask(teacher, items, writer, outputs, grid)
    return TeacherOutputStore.open(Path(folder))


class UnaskedViews(Dataset):
    """The views of a data set that a writer has no answers to, as the teacher sees them.

    An item is (row key, view, pixel values (T, C, H, W)), or the error instead of the pixels.
    """

    def __init__(self, rows, writer, role, processor, settings: ViewSettings, limits=None, on_error="skip"):
        self.rows, self.settings, self.on_error, self.role = rows, settings, on_error, role
        self.reader = SharedViewReader({role: processor}, settings, limits)
        self.wanted: list[tuple[int, str, int]] = []
        seen = set()
        for index, row in enumerate(rows):
            try:
                key = row_key(row)
            except OSError as error:
                if on_error == "raise":
                    raise
                logger.warning("no answers about a video that cannot be opened: %s", error)
                continue
            if key in seen:
                continue
            seen.add(key)
            self.wanted += [(index, key, view) for view in range(settings.views) if (key, view) not in writer]

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, place: int):
        index, key, view = self.wanted[place]
        row = self.rows[index]
        try:
            return key, view, self.reader(row, self.settings.seed_of_view(key, view))[self.role]
        except (VideoError, OSError) as error:
            if self.on_error == "raise":
                raise
            return key, view, f"{type(error).__name__}: {error}"


def teacher_identity(teacher) -> dict:
    """What a teacher is recognised by, in terms of JSON: its weights, its order of classes, and where its features are taken."""
    fingerprint = getattr(teacher, "fingerprint", None)
    if fingerprint is None:
        fingerprint = weights_fingerprint(teacher.model)
    identity = {"fingerprint": fingerprint() if callable(fingerprint) else fingerprint}
    if getattr(teacher, "spec", None) is not None:
        identity["features"] = str(teacher.spec)
    if getattr(teacher, "class_order", None) is not None:
        identity["class_order"] = torch.as_tensor(teacher.class_order).tolist()
    return identity


def processor_identity(processor) -> dict:
    """How a training clip looks to a model, in terms of JSON."""
    fields = json.loads(processor.to_json_string())
    return {name: fields.get(name) for name in _RECIPE_FIELDS}


def _ask(teacher, items, writer, outputs, grid) -> None:
    for key, _, error in items:
        if isinstance(error, str):
            writer.add_error(key, error)
            logger.warning("no answers about a video: %s", error)
    items = [item for item in items if not isinstance(item[2], str)]
    if not items:
        return
    pixels = torch.stack([pixels for _, _, pixels in items])
    with torch.no_grad():
        found = teacher(pixels.to(getattr(teacher, "device", None) or "cpu"))
    lacking = [name for name in outputs if getattr(found, name, None) is None]
    if lacking:
        raise ValueError(
            f"the teacher {getattr(teacher, 'name', None)!r} gives no {' and no '.join(lacking)}: open it with the `FeatureSpec` of its "
            "last feature map, or store outputs=('logits',)"
        )
    answers = {name: getattr(found, name).float() for name in outputs}
    if grid is not None and "features" in answers:
        answers["features"] = F.adaptive_avg_pool3d(answers["features"], tuple(grid))
    writer.add([(key, view) for key, view, _ in items], answers)


def _shown(loader, num_clips: int, progress: bool):
    from tqdm.auto import tqdm

    with tqdm(total=num_clips, desc="asking the teacher", unit="clip", disable=not progress) as bar:
        for items in loader:
            yield items
            bar.update(len(items))


def _known(name: str, values, allowed) -> list:
    values = list(values)
    unknown = [value for value in values if value not in allowed]
    if unknown or not values:
        raise ValueError(f"`{name}` must be of {', '.join(allowed)}, got {', '.join(map(repr, unknown)) or 'nothing'}")
    return values
