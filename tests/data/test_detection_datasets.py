"""Windows of features and of real video files: what they hold, how random they are, and what happens to files that cannot be read."""

import math
import pickle

import pytest
import torch

from hf_effvid.data import load_detection_annotations
from hf_effvid.data.detection_collator import DetectionCollator
from hf_effvid.data.detection_datasets import FeatureWindows, PixelWindows
from hf_effvid.data.synthetic_streams import make_action_streams
from hf_effvid.models.detection_windows import pixels_of
from hf_effvid.models.modeling_actionformer import ActionFormerForTemporalActionDetection
from hf_effvid.models.pipeline_temporal_action_detection import TemporalActionDetectionPipeline
from hf_effvid.models.video_processing_actionformer import ActionFormerProcessor
from hf_effvid.models.video_reader import probe_video
from tests.training.small_detection import MemoryStore, make_features, seconds, tiny_detector, tiny_processor


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    root = tmp_path_factory.mktemp("streams")
    splits = {"train": 3, "validation": 1}
    make_action_streams(root, splits, size=32, seconds=(9, 11), seed=4, progress=False)
    return root


def pixel_processor(**fields):
    recipe = {"feature_fps": 5.0, "feature_stride": 2, "feature_num_frames": 2, "window_length": 16}
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return ActionFormerProcessor(**recipe | size | fields)


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left if torch.is_tensor(left[name]))


class TestFeatures:
    def test_a_whole_video_has_its_annotations_in_steps(self):
        annotations, store = make_features(2, steps=(30, 30))
        data = FeatureWindows(
            annotations, tiny_processor(window_length=64), store, train=True, windows={"crop_ratio": None}
        )
        item = data[0]
        assert torch.equal(item["input_features"], store["video_0"].features)
        expected = [one.start for one in annotations.videos[0].segments]
        assert [seconds(step) for step in item["grid_segments"][:, 0].tolist()] == pytest.approx(expected, abs=1e-5)

    def test_a_window_shows_the_features_under_its_annotations(self):
        annotations, store = make_features(3, steps=(150, 160), noise=0.0)
        data = FeatureWindows(annotations, tiny_processor(window_length=40), store, train=True)
        for epoch in range(4):
            data.set_epoch(epoch)
            for index in range(len(data)):
                item = data[index]
                assert len(item["input_features"]) == 40
                for (start, end), label in zip(
                    item["grid_segments"].tolist(), item["class_labels"].tolist(), strict=True
                ):
                    inside = range(max(0, math.ceil(start - 1e-4)), min(39, math.floor(end + 1e-4)) + 1)
                    assert item["input_features"][list(inside), label].eq(2.0).all()
        assert len(data) == 3 * 4, "as many windows of 40 steps as fit into a video"

    def test_items_depend_on_seed_epoch_and_index_alone(self):
        annotations, store = make_features(3, steps=(100, 120))
        make = lambda seed: FeatureWindows(annotations, tiny_processor(window_length=32), store, train=True, seed=seed)  # noqa: E731
        first, second = make(1), make(1)
        torch.manual_seed(0)
        one = first[2]
        torch.manual_seed(5)
        assert same(second[2], one) and same(pickle.loads(pickle.dumps(second))[2], one)
        assert not same(make(2)[2], one)
        second.set_epoch(1)
        assert not same(second[2], one)

    def test_test_windows_cover_the_video(self):
        annotations, store = make_features(2, steps=(70, 80))
        data = FeatureWindows(annotations, tiny_processor(window_length=32), store, train=False)
        places = [(window.video, window.first, window.num_steps) for window in data.windows]
        length = len(store["video_0"].features)
        assert [place[1] for place in places if place[0] == 0] == [0, 16, 32, length - 32]
        item = data[1]
        assert torch.equal(item["input_features"], store["video_0"].features[16:48])

    def test_stretched_features(self):
        annotations, store = make_features(2, steps=(30, 40))
        processor = tiny_processor(resize_length=64, window_length=64)
        data = FeatureWindows(annotations, processor, store, train=True, windows={"crop_ratio": None})
        item, video = data[0], annotations.videos[0]
        assert item["input_features"].shape[0] == 64
        grid = processor.time_grid(num_steps=len(store["video_0"].features))
        assert grid.to_seconds(item["grid_segments"][0].double()).tolist() == pytest.approx(
            [video.segments[0].start, video.segments[0].end], abs=1e-4
        )

    def test_a_video_without_annotations_is_an_example(self):
        annotations, store = make_features(2)
        annotations.videos[0].segments = []
        item = FeatureWindows(annotations, tiny_processor(window_length=32), store, train=True)[0]
        assert item["grid_segments"].shape == (0, 2) and item["class_labels"].shape == (0,)

    def test_features_of_another_stride_are_refused(self):
        annotations, store = make_features(1)
        processor = tiny_processor(window_length=32)
        processor.feature_stride = 8
        data = FeatureWindows(
            annotations, processor, store, train=True, windows={"windows_per_video": 1}, on_error="raise"
        )
        with pytest.raises(ValueError, match="stride=4 frames, but the processor says feature_stride=8"):
            data[0]

    def test_a_video_that_cannot_be_read_is_replaced_and_reported(self):
        annotations, store = make_features(3, steps=(40, 50))

        class Broken(MemoryStore):
            def __getitem__(self, name):
                if name == "video_1":
                    raise OSError("disk error")
                return super().__getitem__(name)

        data = FeatureWindows(annotations, tiny_processor(window_length=64), Broken(store), train=True)
        assert data[1]["index"] == 2
        assert [(clip.index, clip.error) for clip in data.skipped] == [(1, "OSError")]
        with pytest.raises(OSError, match="disk error"):
            FeatureWindows(annotations, tiny_processor(window_length=64), Broken(store), train=True, on_error="raise")[
                1
            ]


class TestPixels:
    def test_test_windows_are_those_of_the_pipeline_frame_by_frame(self, streams):
        annotations = load_detection_annotations(streams / "annotations.csv", split="train")
        backbone = {"model_type": "video_focalnet", "embed_dim": 8, "depths": [1], "num_frames": 4, "image_size": 32}
        backbone |= {"patch_size": 8, "focal_levels": [1], "focal_windows": [3]}
        model = tiny_detector(backbone_config=backbone, frames_per_step=2, id2label={0: "a"}, label2id={"a": 0})
        assert isinstance(model, ActionFormerForTemporalActionDetection)
        pipe = TemporalActionDetectionPipeline(model, pixel_processor())
        data = PixelWindows(annotations, pipe.video_processor, train=False)
        for number, video in enumerate(annotations.videos):
            ours = [(index, window) for index, window in enumerate(data.windows) if window.video == number]
            theirs = list(pipe.windows(video.path))
            assert len(ours) == len(theirs) > 1
            for (index, window), other in zip(ours, theirs, strict=True):
                assert (window.first, window.num_steps, window.grid) == (other.first, other.num_steps, other.grid)
                expected = pixels_of([other], pipe.video_processor, 0, "cpu")["pixel_values"][0]
                assert torch.equal(data[index]["pixel_values"], expected)

    def test_a_random_window_shows_the_frames_of_its_seconds(self, streams):
        annotations = load_detection_annotations(streams / "annotations.csv", split="train")
        processor = pixel_processor()
        data = PixelWindows(annotations, processor, train=True, seed=3)
        whole = PixelWindows(annotations, pixel_processor(window_length=1000), train=False)
        found = 0
        for index in range(len(annotations.videos)):
            item, video = data[index], whole[index]
            pixels, frames = item["pixel_values"], video["pixel_values"]
            starts = [at for at in range(len(frames) - len(pixels) + 1) if torch.equal(frames[at], pixels[0])]
            match = [at for at in starts if torch.equal(frames[at : at + len(pixels)], pixels)]
            assert match, "a run of the frames of the video"
            # the same annotations, shifted by the window's first frame
            steps = video["grid_segments"] - match[0] / 2
            for segment, label in zip(item["grid_segments"], item["class_labels"], strict=True):
                same_label = steps[video["class_labels"] == label].clamp(-0.5, 16.5)
                assert (same_label - segment).abs().sum(1).min() < 1e-4
                found += 1
        assert found > 0 and len(data) == 2 * len(annotations.videos), "two windows of 3.2 seconds fit into a video"

    def test_one_augmentation_for_all_frames(self, streams):
        annotations = load_detection_annotations(streams / "annotations.csv", split="train")
        options = {"train": True, "seed": 1, "windows": {"windows_per_video": 1}}
        still = PixelWindows(annotations, pixel_processor(), augmentation="none", **options)[0]
        moved = PixelWindows(annotations, pixel_processor(), augmentation="light", **options)
        first, again = moved[0], moved[0]
        assert same(first, again) and torch.equal(first["grid_segments"], still["grid_segments"])
        assert not torch.equal(first["pixel_values"], still["pixel_values"])
        # a still picture stays one
        transform = moved.transform(torch.randint(0, 255, (1, 3, 40, 40), dtype=torch.uint8).expand(5, -1, -1, -1), 3)
        assert all(torch.equal(frame, transform[0]) for frame in transform)
        assert moved.transform.flip_probability == 0.0, "moves_left and moves_right mirror each other"

    def test_a_whole_video_in_a_fixed_number_of_steps(self, streams):
        annotations = load_detection_annotations(streams / "annotations.csv", split="train")
        processor = pixel_processor(resize_length=12, window_length=12, feature_fps=None)
        data = PixelWindows(annotations, processor, train=True, windows={"crop_ratio": None, "windows_per_video": 1})
        item, video = data[0], annotations.videos[0]
        assert item["pixel_values"].shape == (24, 3, 32, 32)
        duration = probe_video(video.path).duration
        middle = (item["grid_segments"][0] + 0.5) * duration / 12
        assert middle.tolist() == pytest.approx([video.segments[0].start, video.segments[0].end], abs=1e-3)

    def test_broken_files(self, streams, tmp_path):
        annotations = load_detection_annotations(streams / "annotations.csv", split="train")
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(b"no video")
        annotations.videos[1].path = str(broken)
        data = PixelWindows(annotations, pixel_processor(), train=False)
        assert {window.video for window in data.windows} == {0, 2}
        assert [clip.source for clip in data.skipped] == [str(broken)]
        with pytest.raises(Exception, match="broken.mp4"):
            PixelWindows(annotations, pixel_processor(), train=False, on_error="raise")

    def test_steps_that_overlap_are_refused(self, streams):
        annotations = load_detection_annotations(streams / "annotations.csv", split="train")
        with pytest.raises(ValueError, match="lie side by side"):
            PixelWindows(annotations, pixel_processor(feature_num_frames=4), train=True)


class TestCollator:
    def test_padding(self):
        annotations, store = make_features(3, steps=(20, 40))
        data = FeatureWindows(annotations, tiny_processor(window_length=64), store, train=True)
        items = [data[index] for index in range(3)]
        batch = DetectionCollator()(items)
        longest = max(len(item["input_features"]) for item in items)
        assert batch["input_features"].shape == (3, longest, 8) and batch["index"].tolist() == [0, 1, 2]
        for row, item in enumerate(items):
            length = len(item["input_features"])
            assert batch["attention_mask"][row].tolist() == [True] * length + [False] * (longest - length)
            assert not batch["input_features"][row, length:].any()
            assert torch.equal(batch["labels"][row]["grid_segments"], item["grid_segments"])
        assert DetectionCollator(pad_length=50)(items)["input_features"].shape == (3, 50, 8)
