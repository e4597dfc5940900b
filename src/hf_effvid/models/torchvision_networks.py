# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes torchvision's video networks out of its public classes, which unlike its functions leave depths, widths and sizes open."""

try:
    from torchvision.models.video import S3D, MViT, SwinTransformer3d, VideoResNet
    from torchvision.models.video.mvit import MSBlockConfig
    from torchvision.models.video.resnet import (
        BasicBlock,
        BasicStem,
        Conv2Plus1D,
        Conv3DNoTemporal,
        Conv3DSimple,
        R2Plus1dStem,
    )
except Exception:
    S3D = None


# default of torchvision's functions, where they have one
_DROP_PATH = {"mvit": 0.2, "swin": 0.1}


def make_video_network(config):
    """torchvision's network with random weights; its last layer is made for one class and meant to be thrown away.

    Args:
        config: A `TorchvisionVideoConfig`.

    Raises:
        ImportError: torchvision is not installed, or has no video networks of these names.
    """
    if S3D is None:
        raise ImportError(
            f"{config.network} is a network of torchvision >= 0.21, which is not installed: pip install torchvision."
        )
    if config.family == "s3d":
        return S3D(num_classes=1)
    if config.family == "resnet":
        return _resnet(config)
    rate = _DROP_PATH[config.family] if config.drop_path_rate is None else config.drop_path_rate
    if config.family == "mvit":
        return _mvit(config, rate)
    heads = max(1, config.stem_size // 32)
    return SwinTransformer3d(
        patch_size=[2, 4, 4],
        embed_dim=config.stem_size,
        depths=list(config.depths),
        num_heads=[heads * 2**stage for stage in range(len(config.depths))],
        window_size=[8, 7, 7],
        stochastic_depth_prob=rate,
        num_classes=1,
    )


def _resnet(config):
    plain, flat = Conv3DSimple, Conv3DNoTemporal
    convolutions = {"r3d_18": [plain] * 4, "mc3_18": [plain, flat, flat, flat], "r2plus1d_18": [Conv2Plus1D] * 4}
    stem = R2Plus1dStem if config.network == "r2plus1d_18" else BasicStem
    return VideoResNet(BasicBlock, convolutions[config.network], list(config.depths), stem, num_classes=1)


def _mvit(config, drop_path_rate):
    second = config.network == "mvit_v2_s"
    return MViT(
        spatial_size=config.frame_shape,
        temporal_size=config.num_frames,
        block_setting=_mvit_blocks(config, second),
        residual_pool=second,
        residual_with_cls_embed=False,
        rel_pos_embed=second,
        proj_after_attn=second,
        stochastic_depth_prob=drop_path_rate,
        num_classes=1,
    )


def _mvit_blocks(config, second):
    """Stage k has 2^k heads and 2^k times the channels of the first, and halves the sides of its queries; keys and values get 1 / (8 / 2^k).

    The first version widens in the last block of the stage before and pools queries only where it halves them, the second in the first
    block of the stage, and pools them everywhere.
    """
    stages = [stage for stage, depth in enumerate(config.depths) for _ in range(depth)]
    blocks = []
    for index, stage in enumerate(stages):
        before, after = stages[max(index - 1, 0)], stages[min(index + 1, len(stages) - 1)]
        stride = 2 if stage > before else 1
        pooled = second or stride > 1
        stride_kv = max(1, 8 >> stage)
        blocks.append(
            MSBlockConfig(
                num_heads=2**stage,
                input_channels=config.stem_size * 2 ** (before if second else stage),
                output_channels=config.stem_size * 2 ** (stage if second else after),
                kernel_q=[3, 3, 3] if pooled else [],
                kernel_kv=[3, 3, 3],
                stride_q=[1, stride, stride] if pooled else [],
                stride_kv=[1, stride_kv, stride_kv],
            )
        )
    return blocks
