"""The slow reference of token selection: the stock model on all tokens, with attention that looks at the kept ones only.

A dropped token still runs through every layer here, but nothing ever reads it. So what is read out of a kept token, or of a
class token, must be what a model computes that never had the others. Nothing of the implementation is used: positions come
from the stock model, which has all tokens in their places.
"""

from contextlib import contextmanager

from transformers import AttentionInterface
from transformers.models.timesformer.modeling_timesformer import TimesformerSelfAttention


_NAME = "reference_masked_keys"


@contextmanager
def attention_reads_only(model, kept):
    """Attention of a stock model with switchable attention leaves out the keys of dropped tokens.

    Args:
        model: a ViViT or V-JEPA 2 classifier.
        kept: (B, tokens) bool, class token included.
    """
    before = model.config._attn_implementation
    AttentionInterface.register(_NAME, _masked_attention(kept))
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _masked_attention(kept):
    def attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        scores = query @ key.transpose(-1, -2) * scaling
        if key.shape[2] > 1:  # one key is the query token of a pooler
            scores = scores.masked_fill(~kept[:, None, None, :], float("-inf"))
        weights = scores.softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    return attention


@contextmanager
def timesformer_reads_only(kept, attention_names=("attention",)):
    """The same for TimeSformer, whose attention cannot be switched.

    Args:
        kept: (B', tokens) bool for the attention of space (or space-time), class token included; B' counts frames too where
            a model attends within a frame.
    """
    stock = TimesformerSelfAttention.forward

    def forward(self, hidden_states, output_attentions=False):
        if hidden_states.shape[1] != kept.shape[1]:  # over time at one place: all of it is kept, or none of it is read
            return stock(self, hidden_states, output_attentions)
        batch, tokens, channels = hidden_states.shape
        query, key, value = (
            self.qkv(hidden_states).reshape(batch, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        )
        scores = query @ key.transpose(-1, -2) * self.scale
        weights = scores.masked_fill(~kept[:, None, None, :], float("-inf")).softmax(-1)
        context = (weights @ value).transpose(1, 2).reshape(batch, tokens, channels)
        return (context, weights) if output_attentions else (context,)

    TimesformerSelfAttention.forward = forward
    try:
        yield
    finally:
        TimesformerSelfAttention.forward = stock
