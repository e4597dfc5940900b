# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Makes torchvision's video networks out of its public classes, which unlike its functions leave depths, widths and sizes open."""

from .checkpointed_block import CheckpointedBlock


try:
    from torchvision.models.swin_transformer import SwinTransformerBlock
    from torchvision.models.video import S3D, MViT, SwinTransformer3d, VideoResNet
    from torchvision.models.video.mvit import MSBlockConfig, MultiscaleBlock
    from torchvision.models.video.resnet import (
        BasicBlock,
        BasicStem,
        Conv2Plus1D,
        Conv3DNoTemporal,
        Conv3DSimple,
        R2Plus1dStem,
    )
    from torchvision.models.video.s3d import SepInceptionBlock3D
except Exception:
    S3D = None


if S3D is not None:

    class CheckpointedBasicBlock(CheckpointedBlock, BasicBlock):
        """A block of R(2+1)D, R3D and MC3."""

        forward = BasicBlock.forward

    class CheckpointedInceptionBlock(CheckpointedBlock, SepInceptionBlock3D):
        """A block of S3D."""

        forward = SepInceptionBlock3D.forward

    class CheckpointedMultiscaleBlock(CheckpointedBlock, MultiscaleBlock):
        """A block of MViT."""

        forward = MultiscaleBlock.forward

    class CheckpointedSwinBlock(CheckpointedBlock, SwinTransformerBlock):
        """A block of Swin3D."""

        forward = SwinTransformerBlock.forward

    _CHECKPOINTED = {
        BasicBlock: CheckpointedBasicBlock,
        SepInceptionBlock3D: CheckpointedInceptionBlock,
        MultiscaleBlock: CheckpointedMultiscaleBlock,
        SwinTransformerBlock: CheckpointedSwinBlock,
    }


def make_video_network(config):
    """torchvision's network with random weights; its last layer is made for one class and meant to be thrown away.

    Its blocks can be checkpointed (`model.gradient_checkpointing_enable()`), which adds no weight and changes no name.

    Args:
        config: A `TorchvisionVideoConfig`.

    Raises:
        ImportError: torchvision is not installed, or has no video networks of these names.
    """
    if S3D is None:
        raise ImportError(
            f"{config.network} is a network of torchvision >= 0.21, which is not installed: pip install torchvision."
        )
    network = _MAKERS[config.family](config)
    for module in network.modules():
        # torchvision makes its blocks itself; ours are theirs in all but how they are called
        module.__class__ = _CHECKPOINTED.get(type(module), type(module))
    return network


def _s3d(config):
    return S3D(num_classes=1)


def _resnet(config):
    plain, flat = Conv3DSimple, Conv3DNoTemporal
    convolutions = {"r3d_18": [plain] * 4, "mc3_18": [plain, flat, flat, flat], "r2plus1d_18": [Conv2Plus1D] * 4}
    stem = R2Plus1dStem if config.network == "r2plus1d_18" else BasicStem
    return VideoResNet(BasicBlock, convolutions[config.network], list(config.depths), stem, num_classes=1)


def _swin(config):
    heads = max(1, config.stem_size // 32)
    return SwinTransformer3d(
        patch_size=[2, 4, 4],
        embed_dim=config.stem_size,
        depths=list(config.depths),
        num_heads=[heads * 2**stage for stage in range(len(config.depths))],
        window_size=[8, 7, 7],
        stochastic_depth_prob=0.1 if config.drop_path_rate is None else config.drop_path_rate,
        num_classes=1,
    )


def _mvit(config):
    second = config.network == "mvit_v2_s"
    return MViT(
        spatial_size=config.frame_shape,
        temporal_size=config.num_frames,
        block_setting=_mvit_blocks(config, second),
        residual_pool=second,
        residual_with_cls_embed=False,
        rel_pos_embed=second,
        proj_after_attn=second,
        stochastic_depth_prob=0.2 if config.drop_path_rate is None else config.drop_path_rate,
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


_MAKERS = {"resnet": _resnet, "s3d": _s3d, "mvit": _mvit, "swin": _swin}
