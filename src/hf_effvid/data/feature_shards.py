"""Files that hold features of many videos: safetensors (one tensor per video), or parquet (one row and row group per video).

Both give back one video without reading the others. Parquet needs `pyarrow`, which comes with `datasets`; `load_dataset` opens it.
"""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from .store_folder import written_whole
from .stored_features import FeatureInfo, FeatureStoreError


SHARD_FORMATS = ("safetensors", "parquet")
_INFOS = "videos"


def write_shard(path: Path, features: dict[str, torch.Tensor], infos: dict[str, FeatureInfo]) -> None:
    """Write features (T, C) of videos by name, with what is known of them; the suffix says in which format.

    A crash half-way leaves nothing under that name.
    """
    with written_whole(path) as draft:
        if path.suffix == ".parquet":
            _write_parquet(draft, features, infos)
            return
        described = {name: asdict(info) for name, info in infos.items()}
        save_file({name: one.contiguous() for name, one in features.items()}, draft, {_INFOS: json.dumps(described)})


def read_from_shard(path: Path, name: str, place: int) -> torch.Tensor:
    """The features (T, C) of one video.

    Args:
        path: the shard.
        name: of the video.
        place: which of the shard's videos it is.
    """
    try:
        if path.suffix == ".parquet":
            return _read_parquet(path, name, place)
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)
    except FileNotFoundError:
        raise FeatureStoreError(f"{path} is missing: copy the whole folder, or extract the features again.") from None
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FeatureStoreError(f"{path} does not hold {name!r} ({reason}): extract the features again.") from error
    except Exception as error:  # safetensors' own type derives from Exception alone
        raise FeatureStoreError(f"{path} is damaged ({error}): extract the features again.") from error


def infos_of_shard(path: Path) -> dict[str, FeatureInfo]:
    """What a safetensors shard says of its videos, in their order.

    Raises:
        FeatureStoreError: it is damaged, or no shard.
    """
    try:
        with safe_open(path, framework="pt") as file:
            described = json.loads(file.metadata()[_INFOS])
        return {name: FeatureInfo(**info) for name, info in described.items()}
    except Exception as error:  # safetensors' own type derives from Exception alone
        raise FeatureStoreError(f"{path} holds no features ({type(error).__name__}: {error}).") from error


def _parquet():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("features in parquet need pyarrow: pip install pyarrow") from error
    return pyarrow


def _write_parquet(path: Path, features: dict[str, torch.Tensor], infos: dict[str, FeatureInfo]) -> None:
    arrow = _parquet()
    kind = arrow.float16() if next(iter(features.values())).dtype == torch.float16 else arrow.float32()
    fields = [("video", arrow.string()), ("features", arrow.list_(arrow.list_(kind)))]
    fields += [(name, arrow.float64()) for name in ("stride", "num_frames", "fps", "duration")]
    schema = arrow.schema(fields)
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        for name, one in features.items():
            steps, channels = one.shape
            flat = arrow.array(one.reshape(-1).numpy(), type=kind)
            rows = arrow.ListArray.from_arrays(arrow.array(range(0, (steps + 1) * channels, channels), "int32"), flat)
            column = arrow.ListArray.from_arrays(arrow.array([0, steps], "int32"), rows)
            info = infos[name]
            numbers = [
                arrow.array([value], "float64") for value in (info.stride, info.num_frames, info.fps, info.duration)
            ]
            writer.write_table(arrow.table([arrow.array([name]), column, *numbers], schema=schema))


def _read_parquet(path: Path, name: str, place: int) -> torch.Tensor:
    arrow = _parquet()
    with arrow.parquet.ParquetFile(path) as file:
        row = file.read_row_group(place, columns=["video", "features"]).combine_chunks()
    if row["video"][0].as_py() != name:
        raise KeyError(f"row {place} is {row['video'][0].as_py()!r}")
    steps = row["features"].chunk(0).flatten()
    values = torch.from_numpy(steps.flatten().to_numpy(zero_copy_only=False).copy())
    return values.reshape(len(steps), -1)
