"""Small stock hosts of token selection, their Lite classes, and what each of them may drop."""

from dataclasses import dataclass

import torch
from transformers import TimesformerForVideoClassification

from hf_effvid.models.modeling_lite_timesformer import LiteTimesformerForVideoClassification
from hf_effvid.models.modeling_lite_vivit import LiteVivitForVideoClassification
from hf_effvid.models.modeling_lite_vjepa2 import LiteVJEPA2ForVideoClassification

from ..pipelines.hosts import randomise, timesformer, vivit, vjepa2
from .masked_reference import attention_reads_only, timesformer_reads_only


FRAMES, SIZE, PATCH = 4, 32, 8


@dataclass(frozen=True)
class Host:
    """A stock model and how to compute, with it alone, what a Lite model should answer.

    Attributes:
        build: a small stock model with no parameter at zero, at any size.
        lite: its Lite class.
        tubelet: frames per token.
        tubes: tokens go or stay by place.
        reference: logits of the stock model with every token in place, reading the kept ones only.
    """

    build: object
    lite: type
    tubelet: int
    reference: object
    tubes: bool = False

    def grid(self, frames=FRAMES, size=SIZE):
        return frames // self.tubelet, size // PATCH, size // PATCH


def _timesformer(attention_type, **size):
    model, _ = timesformer(**size)
    model.config.attention_type = attention_type
    return randomise(TimesformerForVideoClassification(model.config))


def _kept_mask(kept, num_tokens):
    return torch.zeros(len(kept), num_tokens, dtype=torch.bool).scatter(1, kept, True)


def _with_class_token(mask):
    return torch.cat((torch.ones(len(mask), 1, dtype=torch.bool), mask), dim=1)


def vivit_reference(model, pixels, kept, grid, **kwargs):
    mask = _with_class_token(_kept_mask(kept, grid[0] * grid[1] * grid[2]))
    with attention_reads_only(model, mask):
        return model(pixels, **kwargs)


def vjepa2_reference(model, pixels, kept, grid, **kwargs):
    with attention_reads_only(model, _kept_mask(kept, grid[0] * grid[1] * grid[2])):
        return model(pixels, **kwargs)


def joint_reference(model, pixels, kept, grid, **kwargs):
    mask = _kept_mask(kept, grid[0] * grid[1] * grid[2]).unflatten(1, (grid[0], -1))
    mask = _with_class_token(mask.transpose(1, 2).flatten(1))  # the host counts by (y, x, t)
    with timesformer_reads_only(mask):
        return model(pixels, **kwargs)


def divided_reference(model, pixels, kept, grid, **kwargs):
    mask = _kept_mask(kept, grid[0] * grid[1] * grid[2]).unflatten(1, (grid[0], -1))
    with timesformer_reads_only(_with_class_token(mask.flatten(0, 1))):  # space within every frame
        return model(pixels, **kwargs)


HOSTS = {
    "vivit": Host(lambda **size: vivit(**size)[0], LiteVivitForVideoClassification, 2, vivit_reference),
    "vjepa2": Host(lambda **size: vjepa2(**size)[0], LiteVJEPA2ForVideoClassification, 2, vjepa2_reference),
    "timesformer_joint": Host(
        lambda **size: _timesformer("joint_space_time", **size),
        LiteTimesformerForVideoClassification,
        1,
        joint_reference,
    ),
    "timesformer_divided": Host(
        lambda **size: _timesformer("divided_space_time", **size),
        LiteTimesformerForVideoClassification,
        1,
        divided_reference,
        tubes=True,
    ),
}


def make_clips(batch=3, frames=FRAMES, size=SIZE):
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(1))


def lite_of(host, stock, **options):
    """The Lite model with the weights of a stock one, copied key by key; its selector is drawn with biases."""
    config = host.lite.config_class.from_dict(stock.config.to_dict(), **options)
    model = host.lite(config)
    missing, unexpected = model.load_state_dict(stock.state_dict(), strict=False)
    assert not unexpected and all(key.startswith("selector.") for key in missing)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.selector.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()
