"""transformers' own pipeline on our checkpoints: the calls that fail, or give other answers, with a stock video model."""

import pytest
import torch
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hf_effvid.auto import register

from .conftest import largest_difference
from .hosts import scores, video_focalnet


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    register()
    model, processor = video_focalnet()
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(checkpoint):
    return pipeline("video-classification", model=str(checkpoint), device="cpu")


def by_hand(pipe, path, **kwargs):
    """Processor, model, softmax: what the pipeline must come to."""
    with torch.no_grad():
        logits = pipe.model(pipe.video_processor(path, **kwargs)["pixel_values"]).logits
    return {pipe.model.config.id2label[i]: score for i, score in enumerate(logits.softmax(-1)[0].tolist())}


KINDS = ["long_mp4", "short_mp4", "single_mp4", "turned_mp4", "clip_webm", "clip_mkv", "clip_ts"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_container_and_length(pipe, videos, kind):
    path = getattr(videos, kind)
    result = pipe(str(path), top_k=7)
    assert scores(result) == pytest.approx(by_hand(pipe, path), abs=1e-6)
    assert all(one["label"].startswith("move ") for one in result)


def test_a_rotation_tag_is_honoured(pipe, videos):
    assert scores(pipe(str(videos.turned_mp4))) != pytest.approx(scores(pipe(str(videos.long_mp4))), abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_lists_and_generators_in_batches(pipe, videos, batch_size):
    paths = [str(getattr(videos, kind)) for kind in KINDS]
    expected = [pipe(path) for path in paths]
    assert largest_difference(pipe(paths, batch_size=batch_size), expected) < 1e-6
    stream = pipe((path for path in paths), batch_size=batch_size)
    assert not isinstance(stream, list)
    assert largest_difference(list(stream), expected) < 1e-6


def test_key_dataset_of_paths(pipe, videos):
    datasets = pytest.importorskip("datasets")
    paths = [str(videos.long_mp4), str(videos.clip_mkv), str(videos.short_mp4)]
    table = datasets.Dataset.from_dict({"path": paths, "label": [0, 1, 2]})
    results = list(pipe(KeyDataset(table, "path"), batch_size=2))
    assert largest_difference(results, pipe(paths)) < 1e-6


def test_path_objects_bytes_and_decoded_frames(pipe, videos):
    expected = pipe(str(videos.long_mp4))
    assert largest_difference(pipe(videos.long_mp4), expected) == 0
    assert largest_difference(pipe(videos.long_mp4.read_bytes()), expected) == 0


def test_num_frames_for_one_call(pipe, videos):
    result = pipe(str(videos.long_mp4), num_frames=8, top_k=7)
    assert scores(result) == pytest.approx(by_hand(pipe, videos.long_mp4, num_frames=8), abs=1e-6)
    assert scores(result) != pytest.approx(scores(pipe(str(videos.long_mp4), top_k=7)), abs=1e-6)


def test_bf16_model(checkpoint, pipe, videos):
    half = pipeline("video-classification", model=str(checkpoint), dtype=torch.bfloat16, device="cpu")
    assert half.model.dtype == torch.bfloat16
    result = half([str(videos.long_mp4), str(videos.short_mp4)], batch_size=2, top_k=7)
    for got, path in zip(result, (videos.long_mp4, videos.short_mp4), strict=True):
        assert scores(got) == pytest.approx(scores(pipe(str(path), top_k=7)), abs=0.05)


def test_addresses_are_refused(pipe):
    with pytest.raises(ValueError, match="allow_remote"):
        pipe("http://127.0.0.1:9/clip.mp4")
