"""torch.compile of the whole Video-FocalNet: one graph, in evaluation and in training, for any batch, frames and size."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from hf_effvid import VideoFocalNetBackbone, VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.models import focal_ops
from hf_effvid.models.focal_ops import set_focal_implementation


TINY = {"embed_dim": 8, "depths": [1, 1], "focal_levels": [2, 1], "focal_windows": [3, 3], "initialization": "fan_in"}


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def make_model(cls=VideoFocalNetForVideoClassification, **options):
    torch.manual_seed(0)
    return cls(VideoFocalNetConfig(**{**TINY, "num_labels": 3, "drop_path_rate": 0.0, **options}))


def make_clips(batch=2, frames=3, height=20, width=28):
    return torch.randn(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(batch * frames))


def compiled(model, counter, **options):
    # a break is an error
    return torch.compile(model, fullgraph=True, backend=counter, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                {"temporal_encoding": "none"},
                {"temporal_encoding": "sequential"},
                {"temporal_encoding": "joint"},
                {"modulator_fusion": "learned"},
                {"tubelet_size": 2, "use_layerscale": True},
                {"use_postln": True, "use_postln_in_modulation": True, "normalize_modulator": True},
                {"use_conv_embed": True},
                {"focal_levels": [0, 0]},
            )
        ),
    ],
    ids=str,
)
def test_evaluation_is_one_graph(options):
    model, counter = make_model(**options).eval(), CompileCounterWithBackend("aot_eager")
    clips = make_clips(frames=4)
    with torch.no_grad():
        ours, reference = compiled(model, counter)(clips).logits, model(clips).logits
    torch.testing.assert_close(ours, reference)
    assert counter.frame_count == 1


def test_training_is_one_graph_and_gives_the_same_gradients():
    model, counter = make_model().train(), CompileCounterWithBackend("aot_eager")
    clips, labels = make_clips(), torch.tensor([0, 2])
    gradients = []
    for run in (compiled(model, counter), model):
        model.zero_grad()
        run(clips, labels=labels).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    torch.testing.assert_close(*gradients)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_dropped_paths_do_not_break_the_graph():
    model = make_model(drop_path_rate=0.5, hidden_dropout_prob=0.1).train()
    run = compiled(model, CompileCounterWithBackend("aot_eager"))
    losses = {run(make_clips(), labels=torch.tensor([0, 2])).loss.item() for _ in range(4)}
    assert len(losses) > 1  # drawn anew at every call


@pytest.mark.slow
def test_one_graph_serves_every_batch_number_of_frames_and_size():
    model, counter = make_model().eval(), CompileCounterWithBackend("eager")
    run = compiled(model, counter, dynamic=True)
    with torch.no_grad():
        # no two sizes alike at first: the compiler takes equal ones for the same (3 frames for the 3 channels)
        for shape in [(2, 5, 20, 28), (4, 3, 36, 24), (6, 2, 24, 44)]:
            clips = make_clips(*shape)
            torch.testing.assert_close(run(clips).logits, model(clips).logits)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_every_output_may_be_asked_for():
    model, counter = make_model().eval(), CompileCounterWithBackend("aot_eager")
    clips = make_clips()
    with torch.no_grad():
        ours = compiled(model, counter)(clips, output_hidden_states=True, output_modulators=True)
        reference = model(clips, output_hidden_states=True, output_modulators=True)
    assert set(ours) == set(reference)
    for name in reference:
        torch.testing.assert_close(ours[name], reference[name])


@pytest.mark.slow
def test_the_backbone_is_one_graph():
    model = make_model(VideoFocalNetBackbone, out_features=["stage1", "stage2"]).eval()
    with torch.no_grad():
        ours = compiled(model, CompileCounterWithBackend("aot_eager"))(make_clips()).feature_maps
        torch.testing.assert_close(ours, model(make_clips()).feature_maps)


def test_the_triton_operators_are_part_of_the_graph_when_named(monkeypatch):
    """Without a GPU they compute the composite; what the compiler sees of them is the same."""
    graphs = []

    def look(graph, inputs):
        graphs.append(
            {str(node.target).split(".")[1] for node in graph.graph.nodes if "focal_triton" in str(node.target)}
        )
        return graph

    model, clips = make_model().eval(), make_clips()
    monkeypatch.setattr(focal_ops, "can_launch", lambda device_type: True)
    with torch.no_grad():
        torch.compile(model, fullgraph=True, backend=look)(clips)
        torch.compiler.reset()
        try:
            set_focal_implementation("triton")
            ours = torch.compile(model, fullgraph=True, backend=look)(clips).logits
        finally:
            set_focal_implementation()
        torch.testing.assert_close(ours, model(clips).logits)
    assert graphs == [set(), {"gather_spatial", "gather_temporal"}]


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_inductor_computes_the_same(training):
    # one block: the C++ compiler takes its time
    model = make_model(depths=[1], focal_levels=[1], focal_windows=[3]).train(training)
    run, clips, labels = torch.compile(model, fullgraph=True), make_clips(), torch.tensor([0, 2])
    with torch.set_grad_enabled(training):
        ours, reference = run(clips, labels=labels), model(clips, labels=labels)
    torch.testing.assert_close(ours.logits, reference.logits, rtol=1e-4, atol=1e-5)
    if training:
        parameters = list(model.parameters())
        torch.testing.assert_close(
            torch.autograd.grad(ours.loss, parameters),
            torch.autograd.grad(reference.loss, parameters),
            rtol=1e-3,
            atol=1e-5,
        )
