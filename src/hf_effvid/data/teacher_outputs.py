"""What a teacher said of the views of a data set, on disk: it is asked once, and trainings read.

```python
store = TeacherOutputStore.open("answers/vit")
clips = DistillationClipDataset(rows, {"student": processor}, train=True, augmentation="light", views=4, teacher_outputs={"vit": store})
```

A folder holds `recipe.json`, which says of what the answers are, and shards with the answers of many clips each. An answer goes by the
content of the video and the number of the view, so it serves whatever split, order or folder the video comes in.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from .row_keys import row_key
from .shared_views import ViewSettings
from .store_folder import recipe_changes
from .teacher_output_files import OUTPUTS, Key, TeacherCacheError, places_of, read_description
from .teacher_output_writer import TeacherOutputWriter


__all__ = ["OUTPUTS", "TeacherCacheError", "TeacherOutputStore", "TeacherOutputWriter", "readable_keys"]


class TeacherOutputStore:
    """Answers of one teacher. Holds no open files: loader workers may have copies. Made by `open`.

    Attributes:
        folder: where it is.
        recipe: what the answers depend on: `role`, `teacher`, `processor`, `class_names`, `views`, `outputs`, `grid`, `dtype`.
        about: what else is known of the teacher: `name`, `license`.
        errors: videos without an answer, by their key, and why.
        outputs: which of `OUTPUTS` an answer has.
    """

    def __init__(self, folder: Path, described: dict, outputs: Sequence[str]):
        self.folder, self.recipe, self.about = folder, described["recipe"], described["about"]
        self.errors, self.outputs = described["errors"], tuple(outputs)
        self._places = places_of(folder)

    @classmethod
    def open(cls, folder, outputs: Iterable[str] | None = None) -> "TeacherOutputStore":
        """Open a folder.

        Args:
            folder: that of `cache_teacher_outputs` or `effvid cache --teacher`.
            outputs: read these of `OUTPUTS` alone; default: all that were stored.

        Raises:
            TeacherCacheError: the folder holds no answers, or not these outputs.
        """
        folder = Path(folder).expanduser()
        described = read_description(folder)
        if described is None:
            raise TeacherCacheError(
                f"{folder} holds no answers of a teacher: give a folder of `effvid cache --teacher`."
            )
        stored = described["recipe"]["outputs"]
        lacking = sorted(set(outputs or ()) - set(stored))
        if lacking:
            raise TeacherCacheError(
                f"{folder} holds {', '.join(stored)} and no {', '.join(lacking)}: store them too, in another folder, or "
                "switch the terms off that read them."
            )
        return cls(folder, described, [name for name in stored if outputs is None or name in outputs])

    @property
    def role(self) -> str:
        """Of the teacher: "vit" or "cnn"."""
        return self.recipe["role"]

    @property
    def class_names(self) -> list[str]:
        """What the logits are about, in this order."""
        return self.recipe["class_names"]

    @property
    def decode_size(self) -> int | None:
        """Of the views, see `ViewSettings`."""
        return self.recipe["views"]["decode_size"]

    @property
    def horizontal_flips(self) -> bool:
        """Of the views, see `ViewSettings`."""
        return self.recipe["views"]["horizontal_flips"]

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: Key) -> bool:
        return key in self._places

    def __repr__(self) -> str:
        return f"TeacherOutputStore({str(self.folder)!r}, {self.role}, {len(self)} answers)"

    def answers(self, key: str, view: int) -> dict[str, torch.Tensor]:
        """What the teacher said of one view of a clip.

        Args:
            key: `row_key` of the clip.
            view: its number.

        Returns:
            float32: "logits" (N,), "features" (C, T, H, W), "embeddings" (D,), as far as they are read.

        Raises:
            TeacherCacheError: it was not asked, or its file is damaged.
        """
        if (key, view) not in self._places:
            why = f" (the video could not be read: {self.errors[key]})" if key in self.errors else ""
            raise TeacherCacheError(
                f"{self.folder} has no answer of the teacher {self.role!r} to view {view} of the clip {key}{why}: run "
                "`cache_teacher_outputs` or `effvid cache --teacher` again, on this data."
            )
        path, place = self._places[key, view]
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_slice(name)[place : place + 1][0].float() for name in self.outputs}
        except FileNotFoundError:
            raise TeacherCacheError(f"{path} is missing: copy the whole folder, or store the answers again.") from None
        except Exception as error:  # safetensors' own type derives from Exception alone
            raise TeacherCacheError(f"{path} is damaged ({error}): delete it and store its answers again.") from error

    def check_views(self, settings: ViewSettings, class_names: Sequence[str] = ()) -> None:
        """Raise TeacherCacheError, which says what differs, where the answers are about other views or classes.

        Args:
            settings: of the views that are read now.
            class_names: the classes in the order of the student; empty where nobody knows them.
        """
        changes = recipe_changes(self.recipe["views"], settings.identity())
        if class_names and list(class_names) != self.class_names:
            changes.append(f"class_names: {_some(self.class_names)}, now {_some(class_names)}")
        self._refuse(changes)

    def check_teacher(self, teacher: dict, processor: dict | None = None) -> None:
        """Raise TeacherCacheError, which says what differs, where another teacher has answered.

        Args:
            teacher: what it is recognised by, see `training.teacher_cache.teacher_identity`.
            processor: its recipe in terms of JSON.
        """
        now = {"teacher": teacher} | ({"processor": processor} if processor is not None else {})
        now = json.loads(json.dumps(now))
        self._refuse(recipe_changes({name: self.recipe[name] for name in now}, now))

    def check_complete(self, rows, views: int) -> None:
        """Raise TeacherCacheError where answers are missing, but for videos that cannot be read.

        Args:
            rows: of the data set.
            views: so many of each clip are read.
        """
        keys = readable_keys(rows)
        missing = sum((key, view) not in self for key in keys if key not in self.errors for view in range(views))
        if missing:
            raise TeacherCacheError(
                f"{self.folder} lacks {missing} of {len(keys) * views} answers ({len(keys)} clips, {views} views each): run "
                "`cache_teacher_outputs` or `effvid cache --teacher` again, on this data and with as many views; it goes "
                "on where it stopped."
            )

    def _refuse(self, changes: list[str]) -> None:
        if changes:
            raise TeacherCacheError(
                f"{self.folder} holds answers of the teacher {self.role!r} to something else ({'; '.join(changes)}): train "
                "with what they were made with, or store answers in another folder."
            )


def readable_keys(rows) -> list[str]:
    """The keys of a data set's clips, each once; files that cannot be opened are left out."""
    keys = {}
    for row in rows:
        try:
            keys[row_key(row)] = None
        except OSError:
            continue
    return list(keys)


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} classes {list(names)[:5]}"
