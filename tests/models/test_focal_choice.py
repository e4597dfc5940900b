"""Which implementation of focal modulation runs, what happens when it fails, and that a model keeps its manners under each."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.convert.video_focalnet import convert_key, convert_state_dict
from hf_effvid.models import focal_ops, gemm_probe
from hf_effvid.models.focal_implementation import FocalCall
from hf_effvid.models.focal_ops import chosen_implementation, focal_implementation, set_focal_implementation
from hf_effvid.models.focal_processor import CHANNELS_LAST, ONEDNN
from hf_effvid.models.gemm_probe import GemmProbe, probe_gemm
from hf_effvid.models.processor_libraries import OneDnn, Plain, onednn_can
from tests.literal.video_focalnet import LiteralVideoFocalNet


ON_PROCESSOR = ["channels_last"] + ["onednn"] * onednn_can(torch.float32)
SIZES = {"embed_dim": 8, "depths": [1, 1], "focal_levels": [2, 1], "focal_windows": [3, 5]}


def make_model(**options):
    torch.manual_seed(0)
    config = VideoFocalNetConfig(**SIZES, initialization="fan_in", num_labels=5, drop_path_rate=0.0, **options)
    return VideoFocalNetForVideoClassification(config).eval()


def make_clips(batch=2):
    return torch.randn(batch, 4, 3, 40, 24, generator=torch.Generator().manual_seed(1))


def call(operation="modulation", device="cpu", dtype=torch.float32, shape=(1, 8, 32, 32, 96), grad=False):
    return FocalCall(operation, device, dtype, grad, shape, (3, 5), (3, 5))


@pytest.fixture
def fast(monkeypatch):
    """A processor on which oneDNN is said to be twice as fast, and a process in which nothing has failed yet."""
    probe = GemmProbe(torch.float32, 1, plain=100.0, onednn=200.0)
    monkeypatch.setattr(focal_ops, "_failed", set())
    monkeypatch.setattr("hf_effvid.models.focal_processor.probe_gemm", lambda dtype: probe)
    monkeypatch.setattr("hf_effvid.models.focal_processor.onednn_can", lambda dtype: dtype == torch.float32)


@pytest.fixture
def seen(monkeypatch):
    """Names of the implementations that did something, in order; what is observed is done by the composite unnamed."""
    names, run = [], focal_ops._run

    def spy(call, *arguments):
        names.append(chosen_implementation(call).name)
        return run(call, *arguments)

    monkeypatch.setattr(focal_ops, "_run", spy)
    return names


# --- the choice ---


def test_the_faster_library_is_chosen(fast, monkeypatch):
    assert chosen_implementation(call()) is ONEDNN
    slow = GemmProbe(torch.float32, 1, plain=200.0, onednn=210.0)
    monkeypatch.setattr("hf_effvid.models.focal_processor.probe_gemm", lambda dtype: slow)
    assert chosen_implementation(call()) is CHANNELS_LAST


@pytest.mark.parametrize(("onednn", "name"), [(100.0, "onednn"), (80.0, "channels_last")])
def test_in_half_precision_it_is_enough_to_keep_up(onednn, name, monkeypatch):
    probe = GemmProbe(torch.bfloat16, 1, plain=100.0, onednn=onednn)
    monkeypatch.setattr("hf_effvid.models.focal_processor.probe_gemm", lambda dtype: probe)
    monkeypatch.setattr("hf_effvid.models.focal_processor.onednn_can", lambda dtype: True)
    assert chosen_implementation(call(dtype=torch.bfloat16)).name == name


@pytest.mark.parametrize(
    ("different", "name"),
    [
        ({"shape": (1, 4, 8, 8, 8)}, "composite"),
        ({"shape": (16, 8, 32, 32, 32)}, "onednn"),
        ({"shape": (16, 8, 32, 32, 32), "grad": True}, "channels_last"),
        ({"dtype": torch.float16}, "composite"),
        ({"dtype": torch.float64}, "channels_last"),
        ({"device": "xpu"}, "composite"),
        ({"operation": "projection"}, "onednn"),
        ({"operation": "feed_forward", "shape": (2, 512, 96)}, "onednn"),
        ({"grad": True}, "onednn"),
    ],
)
def test_the_choice_fits_the_call(fast, different, name):
    assert chosen_implementation(call(**different)).name == name


def test_nobody_measures_where_results_must_repeat(fast, monkeypatch):
    """Two processes that measure differently would round differently."""
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert chosen_implementation(call()).name == "composite"
    with focal_implementation("onednn"):
        assert chosen_implementation(call()) is ONEDNN


def test_a_setting_holds_for_the_process_and_a_block_for_its_thread(fast):
    found = {}
    set_focal_implementation("channels_last")
    try:
        with focal_implementation("composite"):
            assert chosen_implementation(call()).name == "composite"
            thread = threading.Thread(target=lambda: found.update(other=chosen_implementation(call()).name))
            thread.start()
            thread.join()
        assert (found["other"], chosen_implementation(call()).name) == ("channels_last", "channels_last")
    finally:
        set_focal_implementation()
    assert chosen_implementation(call()) is ONEDNN


def test_an_unknown_name_is_named():
    with pytest.raises(ValueError, match=r"one of auto, .*composite as implementation.*got 'fastest'"):
        set_focal_implementation("fastest")
    with pytest.raises(ValueError, match="'fastest'"), focal_implementation("fastest"):
        pass
    assert focal_ops._process_setting == "auto"


# --- the probe ---


def test_the_probe_measures_once_for_all_threads(monkeypatch):
    calls = []
    monkeypatch.setattr(gemm_probe, "_results", {})
    measure = gemm_probe._measure
    monkeypatch.setattr(gemm_probe, "_measure", lambda *key: calls.append(key) or measure(*key))
    threads = [threading.Thread(target=probe_gemm, args=(torch.float32,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [(torch.float32, torch.get_num_threads())]
    probe = probe_gemm(torch.float32)
    assert probe.plain > 0 and (probe.onednn > 0) == onednn_can(torch.float32)
    assert f"F.linear {probe.plain:.0f} GFLOP/s, oneDNN {probe.onednn:.0f}" in str(probe)


def test_the_probe_says_no_where_onednn_is_switched_off(monkeypatch):
    monkeypatch.setattr(gemm_probe, "_results", {})
    with torch.backends.mkldnn.flags(enabled=False):
        assert not probe_gemm(torch.float32).onednn_is_faster
        with focal_implementation("onednn"):
            assert chosen_implementation(call()).name == "composite"


# --- whoever looks at single operations sees those of the composite ---


def test_observers_see_the_composite(fast, seen):
    model, clips = make_model(), make_clips()
    with torch.no_grad(), focal_implementation("onednn"):
        expected = model(clips).logits
        assert set(seen) == {"onednn"}
        seen.clear()
        stage = model.video_focalnet.encoder.stages[0]
        tokens = torch.randn(1, 4 * 6 * 5, 8)
        torch.compile(stage, fullgraph=True, backend="eager")(tokens, (4, 6, 5))
        traced = torch.jit.trace(model, (clips,), strict=False, check_trace=False)
        torch.testing.assert_close(traced(clips)["logits"], expected)
        model.to("meta")(clips.to("meta"))
    assert seen == []


def test_counters_and_function_transforms_see_the_composite(fast, seen):
    model, clips = make_model(), make_clips()
    with focal_implementation("onednn"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clips)
    with FlopCounterMode(display=False) as reference, torch.no_grad():
        model(clips)
    assert counter.get_total_flops() == reference.get_total_flops() > 0

    def logits(clips):
        return torch.func.functional_call(model, dict(model.named_parameters()), (clips,)).logits

    with focal_implementation("onednn"):
        _, tangent = torch.func.jvp(logits, (clips,), (torch.ones_like(clips),))
        each = torch.func.vmap(logits)(clips[:, None])
    assert seen == []
    assert tangent.isfinite().all()
    torch.testing.assert_close(each[:, 0], model(clips).logits)


# --- failures ---


class Broken:
    """A library that can do nothing."""

    def __init__(self, error):
        self.error = error

    def __getattr__(self, name):
        def fail(*arguments):
            raise self.error

        return fail


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(focal_ops.logger, "warning_once", lines.append)
    return lines


def test_a_failure_falls_back_with_one_line_for_each_operation(fast, seen, said, monkeypatch):
    model, clips = make_model(), make_clips()
    with torch.no_grad(), focal_implementation("composite"):
        expected = model(clips).logits
    seen.clear()
    monkeypatch.setattr(ONEDNN.modulation.__self__, "library", Broken(RuntimeError("no such primitive\nat line 7")))
    with torch.no_grad(), focal_implementation("onednn"):
        assert torch.equal(model(clips).logits, expected)
        assert torch.equal(model(clips).logits, expected)
    assert seen.count("onednn") == len(said) == 4
    assert "onednn failed at projection on cpu in torch.float32 (RuntimeError: no such primitive)" in said[0]
    assert chosen_implementation(call()) is CHANNELS_LAST  # the next one takes over where the choice is open


def test_a_fault_of_the_caller_is_not_held_against_an_implementation(fast, said):
    model = make_model()
    model.video_focalnet.encoder.stages[0].layers[0].modulation.projection_in = nn.Linear(7, 19)
    with (
        focal_implementation("onednn"),
        pytest.raises(RuntimeError, match="shapes cannot be multiplied|size mismatch"),
    ):
        model(make_clips())
    assert not said and not focal_ops._failed


def test_running_out_of_memory_is_no_reason_to_try_again(fast, said, monkeypatch):
    monkeypatch.setattr(ONEDNN.modulation.__self__, "library", Broken(torch.OutOfMemoryError("out of memory")))
    with focal_implementation("onednn"), pytest.raises(torch.OutOfMemoryError):
        make_model()(make_clips())
    assert not said and not focal_ops._failed


# --- whole models ---


@pytest.mark.parametrize("name", ["composite", *ON_PROCESSOR])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_literal_network_and_ours(name, dtype):
    torch.manual_seed(0)
    literal = LiteralVideoFocalNet(num_classes=5, **SIZES).to(dtype)
    for parameter in literal.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    ours = make_model().to(dtype)
    ours.load_state_dict(convert_state_dict(literal.state_dict()))
    clips, weights = make_clips().to(dtype), torch.linspace(-1, 1, 10, dtype=dtype).view(2, 5)
    reference = literal(clips)
    (reference * weights).sum().backward()
    with focal_implementation(name):
        logits = ours(clips).logits
        (logits * weights).sum().backward()
        with torch.no_grad():
            torch.testing.assert_close(ours(clips).logits, reference, **close(dtype, reference))
    torch.testing.assert_close(logits, reference, **close(dtype, reference))
    gradients = {key: parameter.grad for key, parameter in ours.named_parameters()}
    for key, parameter in literal.named_parameters():
        ours_here = gradients[convert_key(key)].reshape(parameter.shape)
        torch.testing.assert_close(ours_here, parameter.grad, **close(dtype, parameter.grad))


def close(dtype, reference):
    scale = max(1.0, reference.abs().max().item())
    return {"rtol": 0, "atol": (1e-9 if dtype == torch.float64 else 3e-5) * scale}


@pytest.mark.parametrize("name", ON_PROCESSOR)
@pytest.mark.parametrize("grad", [False, True])
def test_half_precision_is_as_good_as_the_composite(name, grad):
    """Rounding to 8 bits dominates whoever does it: the error may be half as large again as the composite's, no more."""
    model, clips = make_model(), make_clips(batch=8)
    with torch.no_grad():
        exact = model.double()(clips.double()).logits
    model.bfloat16()
    errors = {}
    for chosen in ("composite", name):
        with focal_implementation(chosen), torch.set_grad_enabled(grad):
            logits = model(clips).logits
        assert logits.dtype == torch.bfloat16
        errors[chosen] = (logits.double() - exact).square().mean().sqrt().item()
    assert errors[name] <= 1.5 * errors["composite"] < 0.1


@pytest.mark.parametrize("name", ON_PROCESSOR)
@pytest.mark.parametrize("grad", [False, True])
def test_autocast(name, grad):
    model, clips = make_model(), make_clips()
    results = {}
    for chosen in ("composite", name):
        with focal_implementation(chosen), torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(grad):
            outputs = model(clips, output_modulators=True, output_hidden_states=True)
        results[chosen] = [
            outputs.logits,
            *outputs.hidden_states,
            *outputs.spatial_modulators,
            *outputs.temporal_gates,
        ]
    for ours, reference in zip(results[name], results["composite"], strict=True):
        assert ours.dtype == reference.dtype
        error = (ours.float() - reference.float()).square().mean().sqrt() / reference.float().square().mean().sqrt()
        assert error < 0.02
    if grad:
        results[name][0].sum().backward()
        assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("name", ON_PROCESSOR)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(name, reentrant):
    model, clips = make_model().train(), make_clips()
    expected = torch.autograd.grad(model(clips).logits.square().sum(), list(model.parameters()))
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    with focal_implementation(name):
        found = (
            torch.autograd.grad(model(clips).logits.square().sum(), list(model.parameters()))
            if not reentrant
            else (backward_into(model, clips))
        )
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-3, atol=1e-4)


def backward_into(model, clips):
    model.zero_grad()
    model(clips.requires_grad_()).logits.square().sum().backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("name", ON_PROCESSOR)
def test_adapters_and_hooks_take_part(name):
    """A module that is more than a product with its weight is called, wherever it stands."""
    peft = pytest.importorskip("peft")
    model, clips = make_model(), make_clips()
    targets = ["projection_in", "projection_in_temporal", "projection_context", "projection_out", "fc1", "fc2"]
    adapted = peft.get_peft_model(
        model, peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False, lora_dropout=0.0)
    ).eval()
    called = []
    layer = model.video_focalnet.encoder.stages[1].layers[0].modulation.projection_context_temporal
    layer.register_forward_hook(lambda module, inputs, output: called.append(module))
    with torch.no_grad():
        with focal_implementation("composite"):
            expected = adapted(pixel_values=clips).logits
        with focal_implementation(name):
            torch.testing.assert_close(adapted(pixel_values=clips).logits, expected)
            with adapted.disable_adapter():
                assert not torch.allclose(adapted(pixel_values=clips).logits, expected)
    assert called == [layer] * 3
    with focal_implementation(name):
        adapted(pixel_values=clips).logits.square().sum().backward()
    trained = {key.split(".lora_")[0].rsplit(".", 1)[1] for key, p in adapted.named_parameters() if p.grad is not None}
    assert trained == set(targets)


@pytest.mark.parametrize("name", ON_PROCESSOR)
def test_outputs_that_hooks_keep_are_not_written_to(name):
    model, clips = make_model(), make_clips()
    kept = []
    for module in model.modules():
        if not isinstance(module, VideoFocalNetForVideoClassification):
            module.register_forward_hook(lambda module, inputs, output: kept.append((output, copy.deepcopy(output))))
    with torch.no_grad(), focal_implementation(name):
        model(clips, output_hidden_states=True, output_modulators=True)
    for now, then in kept:
        torch.testing.assert_close(now, then, rtol=0, atol=0)


@pytest.mark.parametrize("name", ON_PROCESSOR)
def test_models_are_copied_pickled_and_shared_between_threads(name):
    model, clips = make_model(), make_clips()
    with torch.inference_mode():
        expected = model(clips).logits
        set_focal_implementation(name)
        try:
            model(clips)
            results = [copy.deepcopy(model)(clips).logits, pickle.loads(pickle.dumps(model))(clips).logits]

            def classify():
                with torch.inference_mode():
                    results.append(model(clips).logits)

            threads = [threading.Thread(target=classify) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            set_focal_implementation()
    assert len(results) == 6
    for logits in results:
        torch.testing.assert_close(logits, expected)


class Logits(Dataset):
    """Clips classified in the worker of a loader."""

    def __init__(self, model, clips, name):
        self.model, self.clips, self.name = model, clips, name

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        with torch.no_grad(), focal_implementation(self.name):
            return self.model(self.clips[index][None]).logits[0]


@pytest.mark.parametrize("name", ON_PROCESSOR)
def test_in_forked_workers_after_use_in_the_parent(name):
    model, clips = make_model(), make_clips()
    with torch.no_grad(), focal_implementation(name):
        expected = model(clips).logits
    loader = DataLoader(Logits(model, clips, name), batch_size=2, num_workers=1, multiprocessing_context="fork")
    torch.testing.assert_close(next(iter(loader)), expected)


def test_the_names_of_weights_are_those_of_modules():
    model = make_model()
    before = list(model.state_dict())
    for name in ON_PROCESSOR:
        with focal_implementation(name), torch.no_grad():
            model(make_clips())
    assert list(model.state_dict()) == before and not list(model.buffers())


def test_libraries_have_the_same_functions():
    names = {name for name in vars(Plain) if not name.startswith("_")}
    assert names == {name for name in vars(OneDnn) if not name.startswith("_")}
