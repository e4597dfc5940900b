"""The processor of a detector: features and seconds in, the same decisions out whatever the batches, and the recorded ones."""

import time
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.convert.actionformer import recipe_for
from hf_effvid.models.configuration_actionformer import ActionFormerConfig, default_regression_ranges
from hf_effvid.models.temporal_decisions import decide, fuse_video_scores
from hf_effvid.models.temporal_points import make_points
from hf_effvid.models.video_processing_actionformer import ActionFormerProcessor
from tests.parity.actionformer_reference import EVALUATIONS, ReferenceCase


RANGES = [[0.0, 4.0], [4.0, 8.0], [8.0, 1e4]]


def make_outputs(windows, num_classes=3, seed=0):
    """What a detector might say of windows of one length."""
    generator = torch.Generator().manual_seed(seed)
    points = make_points(windows[0].num_steps, RANGES)
    shape = (len(windows), len(points))
    return SimpleNamespace(
        logits=torch.randn(*shape, num_classes, generator=generator) * 2 - 2,
        offsets=torch.rand(*shape, 2, generator=generator) * 3,
        point_mask=torch.rand(*shape, generator=generator) > 0.1,
        points=points,
    )


def rows_of(outputs, rows):
    parts = {name: getattr(outputs, name)[rows] for name in ("logits", "offsets", "point_mask")}
    return SimpleNamespace(**parts, points=outputs.points)


@pytest.mark.parametrize(("name", "index"), EVALUATIONS)
def test_final_detections_of_the_reference(name, index):
    case = ReferenceCase(name)
    meta, tests = case.record["eval"][index]["meta"], case.tests
    processor = ActionFormerProcessor(
        feature_stride=meta["feat_stride"],
        feature_num_frames=meta["feat_num_frames"],
        window_length=None,
        candidate_threshold=tests["pre_nms_thresh"],
        candidate_top_k=tests["pre_nms_topk"],
        min_steps=tests["duration_thresh"],
        nms_method=tests["nms_method"],
        nms_sigma=tests["nms_sigma"],
        min_score=tests["min_score"],
        max_segments=tests["max_seg_num"],
        class_agnostic=not tests["multiclass_nms"],
        voting_threshold=tests["voting_thresh"],
    )
    features, mask = case.evaluation_inputs(index)
    with torch.no_grad():
        outputs = case.model(input_features=features, attention_mask=mask)
    windows = processor.plan_windows([features.shape[1]], fps=meta["fps"])
    found = processor.post_process_temporal_action_detection(outputs, windows, durations=[meta["duration"]])[0]
    expected = {key: case.recorded[f"eval{index}.final.{key}"] for key in ("segments", "scores", "labels")}
    torch.testing.assert_close(found["scores"].float(), expected["scores"], rtol=0, atol=2e-6)
    torch.testing.assert_close(found["segments"].float(), expected["segments"], rtol=1e-5, atol=5e-5)
    assert found["labels"].tolist() == expected["labels"].tolist()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 9), max_size=4), order=st.randoms())
def test_merged_windows_do_not_depend_on_batches_or_their_order(seed, cuts, order):
    processor = ActionFormerProcessor(window_length=16, max_segments=50)
    windows = processor.plan_windows([40, 30, 50], fps=[25.0, 30.0, 24.0])
    outputs = make_outputs(windows, seed=seed)
    at_once = processor.post_process_temporal_action_detection(outputs, windows, durations=[7.0, 4.0, 9.0])
    rows = list(range(len(windows)))
    order.shuffle(rows)
    edges = sorted({0, *(min(cut, len(rows)) for cut in cuts), len(rows)})
    candidates = []
    for first, last in zip(edges, edges[1:], strict=False):
        part = rows[first:last]
        candidates += processor.decode_windows(rows_of(outputs, part), [windows[row] for row in part])
    in_parts = processor.merge_windows(candidates, durations=[7.0, 4.0, 9.0])
    for one, other in zip(at_once, in_parts, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("segments", "scores", "labels"))
        assert len(one["scores"]) and (one["segments"][:, 1] <= 9.0).all()


def test_an_event_in_two_windows_is_said_once_in_seconds():
    processor = ActionFormerProcessor(feature_stride=15, feature_num_frames=15, window_length=8, nms_method="hard")
    windows = processor.plan_windows([12], fps=15)
    assert [(window.first, window.num_steps) for window in windows] == [(0, 8), (4, 8)]
    points = make_points(8, RANGES[:1])
    outputs = SimpleNamespace(
        logits=torch.full((2, 8, 2), -20.0),
        offsets=torch.ones(2, 8, 2),
        point_mask=torch.ones(2, 8).bool(),
        points=points,
    )
    outputs.logits[0, 6, 1], outputs.logits[1, 2, 1] = 3.0, 2.0  # step 6 of the video, seen by both
    found = processor.post_process_temporal_action_detection(outputs, windows, durations=[12.0])[0]
    assert found["segments"].tolist() == [[5.5, 7.5]] and found["labels"].tolist() == [1]
    assert found["scores"].item() == pytest.approx(torch.tensor(3.0).sigmoid().item())


def test_features_become_windows_and_padding_is_said():
    processor = ActionFormerProcessor(window_length=6)
    features = [torch.arange(20.0).reshape(10, 2), torch.ones(3, 2)]
    windows = processor.plan_windows([10, 3], fps=30)
    batch = processor.encode_features(features, windows)
    assert batch["input_features"].shape == (4, 6, 2)
    assert batch["attention_mask"].sum(1).tolist() == [6, 6, 6, 3]
    assert torch.equal(batch["input_features"][1], features[0][3:9])
    assert not batch["input_features"][3, 3:].any()
    padded = ActionFormerProcessor(pad_length=6).encode_features([features[1]])
    assert padded["input_features"].shape == (1, 6, 2)
    whole = processor.encode_features([one.numpy() for one in features])
    assert whole["input_features"].shape == (2, 10, 2)


def test_features_that_do_not_fit():
    processor = ActionFormerProcessor(window_length=6)
    with pytest.raises(ValueError, match="one C"):
        processor.encode_features([torch.ones(3, 2), torch.ones(3, 4)])
    with pytest.raises(ValueError, match="beyond"):
        processor.encode_features([torch.ones(3, 2)], processor.plan_windows([5], fps=30))
    with pytest.raises(ValueError, match="fps"):
        processor.plan_windows([5])
    with pytest.raises(ValueError, match="no features"):
        processor.plan_windows([0], fps=30)
    with pytest.raises(ValueError, match="one frame rate"):
        processor.plan_windows([5], fps=[30, 30])


@settings(max_examples=50, deadline=None)
@given(start=st.floats(0, 10), length=st.floats(0.3, 5), fps=st.floats(5, 60))
def test_annotations_there_and_back(start, length, fps):
    processor = ActionFormerProcessor()
    windows = processor.plan_windows([5000], fps=fps)
    annotation = {"segments": [[start, start + length]], "labels": [4]}
    target = processor.encode_annotations([annotation], windows)[0]
    assert target["class_labels"].tolist() == [4]
    back = windows[0].grid.to_seconds(target["grid_segments"][0].double()).tolist()
    assert back == pytest.approx([start, start + length], abs=1e-3)


def test_annotations_are_cut_to_windows_or_left_out():
    processor = ActionFormerProcessor(feature_stride=1, feature_num_frames=1, window_length=10, window_overlap=0.0)
    windows = processor.plan_windows([20], fps=1.0)
    annotation = {"segments": [[8.5, 11.5], [9.5, 15.5], [2.5, 4.5]], "labels": [0, 1, 2]}
    first, second = processor.encode_annotations([annotation], windows)
    assert first["grid_segments"].tolist() == [[8.0, 10.0], [2.0, 4.0]] and first["class_labels"].tolist() == [0, 2]
    assert second["grid_segments"].tolist() == [[0.0, 5.0]] and second["class_labels"].tolist() == [1]
    empty = processor.encode_annotations([{"segments": [], "labels": []}], windows)
    assert empty[0]["grid_segments"].shape == (0, 2)


def test_stretched_features_keep_their_seconds():
    processor = ActionFormerProcessor(feature_stride=16, feature_num_frames=16, feature_fps=15, resize_length=24)
    windows = processor.plan_windows([60])
    assert [window.num_steps for window in windows] == [24]
    # a ramp over time stays a ramp over time
    grid = ActionFormerProcessor(feature_stride=16, feature_num_frames=16, feature_fps=15).time_grid()
    ramp = grid.to_seconds(torch.arange(60.0))[:, None]
    stretched = processor.encode_features([ramp], windows)["input_features"][0, 2:-2, 0]
    expected = windows[0].grid.to_seconds(torch.arange(24.0))[2:-2]
    torch.testing.assert_close(stretched, expected, rtol=1e-4, atol=1e-3)


def test_fusion_with_the_scores_of_a_classifier():
    detections = {
        "segments": torch.tensor([[0.0, 1.0], [2.0, 3.0]]), "scores": torch.tensor([0.9, 0.4]), "labels": torch.tensor([0, 0])
    }  # fmt: skip
    found = fuse_video_scores(detections, [0.1, 0.8, 0.5], "product", top_k=2)
    assert found["scores"].tolist() == pytest.approx([0.72, 0.45, 0.32, 0.2])
    assert found["labels"].tolist() == [1, 2, 1, 2]
    assert found["segments"][:, 0].tolist() == [0.0, 0.0, 2.0, 2.0]
    root = fuse_video_scores(detections, [0.1, 0.8, 0.5], "sqrt", top_k=1)
    assert root["scores"].tolist() == pytest.approx([0.72**0.5, 0.32**0.5])
    of_classes = detections | {"labels": torch.tensor([0, 1])}
    found = fuse_video_scores(of_classes, [0.1, 0.8], "product", single_class=False)
    assert found["labels"].tolist() == [1, 0] and found["scores"].tolist() == pytest.approx([0.32, 0.09])
    with pytest.raises(ValueError, match="score_fusion"):
        fuse_video_scores(detections, [0.5], "mean")
    with pytest.raises(ValueError, match="probability"):
        fuse_video_scores(detections, [2.0])
    with pytest.raises(ValueError, match="classes"):
        fuse_video_scores(of_classes, [0.5], single_class=False)


def test_decisions():
    detections = {
        "segments": torch.tensor([[-1.0, 2.0], [8.0, 12.0], [3.0, 3.2]]),
        "scores": torch.tensor([0.9, 0.6, 0.3]),
        "labels": torch.tensor([0, 1, 1]),
    }
    assert decide(detections, duration=10.0)["segments"].tolist() == [
        [0.0, 2.0],
        [8.0, 10.0],
        [3.0, pytest.approx(3.2)],
    ]
    assert decide(detections, min_duration=0.5)["labels"].tolist() == [0, 1]
    assert decide(detections, threshold=0.5)["labels"].tolist() == [0, 1]
    assert decide(detections, threshold={0: 0.95, 1: 0.2})["scores"].tolist() == pytest.approx([0.6, 0.3])
    assert decide(detections, threshold={None: 0.95, 1: 0.2})["labels"].tolist() == [1, 1]
    assert decide(detections, top_k=1)["labels"].tolist() == [0]


def test_videos_without_any_candidate():
    processor = ActionFormerProcessor(window_length=8)
    windows = processor.plan_windows([8, 8], fps=30)
    outputs = make_outputs(windows)
    outputs.logits[1] = -20.0
    found = processor.post_process_temporal_action_detection(outputs, windows, durations=[9.0, 9.0])
    assert len(found[0]["scores"]) and found[1]["segments"].shape == (0, 2)
    assert processor.merge_windows([], num_videos=2)[1]["scores"].shape == (0,)
    with pytest.raises(ValueError, match="one window per row"):
        processor.decode_windows(outputs, windows[:1])
    with pytest.raises(ValueError, match="durations"):
        processor.merge_windows(processor.decode_windows(outputs, windows), durations=[9.0], num_videos=2)


def test_the_recipe_is_saved_and_checked(tmp_path):
    processor = ActionFormerProcessor(feature_stride=8, window_length=192, class_agnostic=True, nms_sigma=0.75)
    processor.save_pretrained(tmp_path)
    again = ActionFormerProcessor.from_pretrained(tmp_path)
    assert again.recipe() == processor.recipe()
    for change in ({"nms_method": "fast"}, {"feature_stride": 0}, {"window_overlap": 1.0}, {"window_length": 0}):
        with pytest.raises(ValueError, match=next(iter(change))):
            ActionFormerProcessor(**change)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 20), {"feature_stride": 4, "class_agnostic": False, "pad_length": 2304, "resize_length": None}),
        ((256, 1), {"feature_stride": 16, "class_agnostic": True, "resize_length": 192, "voting_threshold": 0.9}),
        ((512, 97), {"feature_num_frames": 32, "nms_sigma": 0.4, "candidate_top_k": 5000}),
        ((16, 1), {"class_agnostic": True, "feature_fps": None}),
    ],
)
def test_converted_checkpoints_come_with_the_recipe_they_were_tested_with(size, expected):
    config = ActionFormerConfig(hidden_size=size[0], num_labels=size[1], mask_after_norm="nowhere")
    recipe = ActionFormerProcessor(**recipe_for(config, horizontal_flip_safe=False)).recipe()
    assert {name: recipe[name] for name in expected} == expected
    assert recipe["horizontal_flip_safe"] is False
    config.mask_after_norm = "everywhere"
    assert recipe_for(config, True)["pad_length"] is None


@pytest.mark.slow
def test_from_outputs_to_detections_within_a_second():
    """33 windows of the released model's length, 20 classes: about 370,000 candidates, decoded, merged and decided on."""
    processor = ActionFormerProcessor()
    windows = processor.plan_windows([2304] * 33, fps=30)
    generator = torch.Generator().manual_seed(0)
    points = make_points(2304, default_regression_ranges(6))
    shape = (33, len(points))
    outputs = SimpleNamespace(
        logits=torch.randn(*shape, 20, generator=generator) * 2 - 4,
        offsets=torch.rand(*shape, 2, generator=generator) * 4,
        point_mask=torch.ones(shape, dtype=torch.bool),
        points=points,
    )

    def seconds():
        began = time.process_time()
        processor.post_process_temporal_action_detection(outputs, windows, durations=[400.0] * 33)
        return time.process_time() - began

    assert sum(len(one.scores) for one in processor.decode_windows(outputs, windows)) > 350_000
    assert min(seconds() for _ in range(3)) < 1  # of the processor: a busy machine must not fail this


def test_candidates_that_reach_too_far_out_of_their_window_can_be_left_to_others():
    processor = ActionFormerProcessor(
        feature_stride=1, feature_num_frames=1, feature_fps=1, window_length=10, candidate_threshold=0.0
    )
    window = processor.plan_windows([30])[1]  # steps 5 to 14, seconds 5 to 15
    points = torch.tensor([[0.0, 0, 1e4, 1], [9.0, 0, 1e4, 1]])
    outputs = SimpleNamespace(
        logits=torch.zeros(1, 2, 1),
        offsets=torch.tensor([[[2.0, 1.0], [1.0, 4.0]]]),
        point_mask=torch.ones(1, 2, dtype=torch.bool),
        points=points,
    )

    def found(reach):
        return processor.decode_windows(outputs, [window], window_reach=reach)[0].segments.tolist()

    assert found(None) == found(3.5) == [[3.5, 6.5], [13.5, 18.5]]
    assert found(3.4) == found(1.5) == [[3.5, 6.5]]
    assert found(0.0) == found(1.4) == []
    with pytest.raises(ValueError, match="window_reach must be None or seconds"):
        ActionFormerProcessor(window_reach=-1)
