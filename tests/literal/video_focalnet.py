"""Video-FocalNet one operation after the other, as its authors run it: what speed is measured against.

Written from the equations and the layouts of the released network, under its parameter names, with nothing improved: tokens are
(B * T, N, C), spatial maps are copied to (B * T, C, H, W), temporal ones to (B * H * W, C, T), the projections of the contexts are
1x1 convolutions, the temporal convolution is a dense conv1d, every residual branch is multiplied by its scale of 1.0.

Slow on purpose. The one difference is that the number of frames is read off the input.
"""

import torch
from torch import nn
from torch.nn import functional as F


class LiteralModulation(nn.Module):
    """Spatio-temporal focal modulation of y (B * T, H, W, C)."""

    def __init__(self, dim, levels, window, normalize, postln):
        super().__init__()
        self.dim, self.levels, self.normalize = dim, levels, normalize
        self.f = nn.Linear(dim, 2 * dim + levels + 1)
        self.h = nn.Conv2d(dim, dim, 1)
        self.proj = nn.Linear(dim, dim)
        self.f_temporal = nn.Linear(dim, dim + levels + 1)
        self.h_temporal = nn.Conv1d(dim, dim, 1)
        self.ln = nn.LayerNorm(dim) if postln else None
        sizes = [window + 2 * level for level in range(levels)]
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim, bias=False), nn.GELU()) for k in sizes
        )
        self.focal_layers_temporal = nn.ModuleList(
            nn.Sequential(nn.Conv1d(dim, dim, k, padding=k // 2, bias=False), nn.GELU()) for k in sizes
        )

    def forward(self, y, steps):
        temporal = self.temporal_modulator(y.clone(), steps)
        projected = self.f(y).permute(0, 3, 1, 2).contiguous()
        query, context, gates = torch.split(projected, (self.dim, self.dim, self.levels + 1), 1)
        gathered = 0
        for level in range(self.levels):
            context = self.focal_layers[level](context)
            gathered = gathered + context * gates[:, level : level + 1]
        everywhere = F.gelu(context.mean(2, keepdim=True).mean(3, keepdim=True))
        gathered = gathered + everywhere * gates[:, self.levels :]
        if self.normalize:
            gathered = gathered / (self.levels + 1)
        output = query * self.h(gathered)
        output = output * temporal
        output = output.permute(0, 2, 3, 1).contiguous()
        if self.ln is not None:
            output = self.ln(output)
        return self.proj(output)

    def temporal_modulator(self, y, steps):
        """m_t (B * T, C, H, W)."""
        frames, height, width, channels = y.shape
        clips = frames // steps
        tracks = y.reshape(clips, steps, height, width, channels).permute(0, 2, 3, 1, 4)
        tracks = tracks.reshape(clips * height * width, steps, channels)
        projected = self.f_temporal(tracks).permute(0, 2, 1).contiguous()
        context, gates = torch.split(projected, (channels, self.levels + 1), 1)
        gathered = 0
        for level in range(self.levels):
            context = self.focal_layers_temporal[level](context)
            gathered = gathered + context * gates[:, level : level + 1]
        gathered = gathered + F.gelu(context.mean(2, keepdim=True)) * gates[:, self.levels :]
        if self.normalize:
            gathered = gathered / (self.levels + 1)
        modulator = self.h_temporal(gathered)
        modulator = modulator.reshape(clips, height, width, channels, steps).permute(0, 4, 3, 1, 2)
        return modulator.reshape(frames, channels, height, width)


class LiteralMlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)

    def forward(self, tokens):
        return self.fc2(self.act(self.fc1(tokens)))


class LiteralBlock(nn.Module):
    """One block on tokens (B * T, N, C); stochastic depth is left out, as in evaluation."""

    def __init__(self, dim, levels, window, options):
        super().__init__()
        self.postln = options["use_postln"]
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        in_modulation = options["use_postln_in_modulation"]
        self.modulation = LiteralModulation(dim, levels, window, options["normalize_modulator"], in_modulation)
        self.mlp = LiteralMlp(dim, int(dim * options["mlp_ratio"]))
        self.gamma_1 = self.gamma_2 = 1.0
        if options["use_layerscale"]:
            value = options["layerscale_value"]
            self.gamma_1 = nn.Parameter(torch.full((dim,), value))
            self.gamma_2 = nn.Parameter(torch.full((dim,), value))

    def forward(self, x, steps, height, width):
        frames, sites, channels = x.shape
        shortcut = x
        x = x if self.postln else self.norm1(x)
        x = self.modulation(x.view(frames, height, width, channels), steps).view(frames, sites, channels)
        x = self.norm1(x) if self.postln else x
        x = shortcut + self.gamma_1 * x
        branch = self.norm2(self.mlp(x)) if self.postln else self.mlp(self.norm2(x))
        return x + self.gamma_2 * branch


class LiteralPatchEmbed(nn.Module):
    """Convolution to tokens (frames, N, C), then LayerNorm."""

    def __init__(self, in_chans, dim, kernel, stride, padding=0, tubelet=1, norm=True):
        super().__init__()
        if tubelet > 1:
            size = (tubelet, kernel, kernel)
            self.proj = nn.Conv3d(in_chans, dim, size, stride=size)
        else:
            self.proj = nn.Conv2d(in_chans, dim, kernel, stride=stride, padding=padding)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, x):
        x = self.proj(x)
        if x.ndim == 5:  # (B, C, T, H, W)
            x = x.permute(0, 2, 1, 3, 4).flatten(0, 1)
        height, width = x.shape[2:]
        return self.norm(x.flatten(2).transpose(1, 2)), height, width


class LiteralStage(nn.Module):
    def __init__(self, dim, depth, levels, window, last, options):
        super().__init__()
        self.blocks = nn.ModuleList(LiteralBlock(dim, levels, window, options) for _ in range(depth))
        kernel = {"kernel": 3, "padding": 1} if options["use_conv_embed"] else {"kernel": 2}
        self.downsample = None if last else LiteralPatchEmbed(dim, 2 * dim, stride=2, **kernel)

    def forward(self, x, steps, height, width):
        for block in self.blocks:
            x = block(x, steps, height, width)
        if self.downsample is not None:
            x = x.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, width)
            x, height, width = self.downsample(x)
        return x, height, width


DEFAULTS = {
    "patch_size": 4,
    "in_chans": 3,
    "num_classes": 1000,
    "embed_dim": 96,
    "depths": [2, 2, 6, 2],
    "mlp_ratio": 4.0,
    "patch_norm": True,
    "focal_levels": [2, 2, 2, 2],
    "focal_windows": [3, 3, 3, 3],
    "use_conv_embed": False,
    "use_layerscale": False,
    "layerscale_value": 1e-4,
    "use_postln": False,
    "use_postln_in_modulation": False,
    "normalize_modulator": False,
    "tubelet_size": 1,
}
# arguments of the released constructor that change nothing here
IGNORED = ("img_size", "num_frames", "drop_rate", "drop_path_rate")


class LiteralVideoFocalNet(nn.Module):
    """The whole network; arguments and parameters have the names of the released one.

    `forward(pixel_values (B, T, 3, H, W))` gives logits (B, num_classes).
    """

    def __init__(self, **arguments):
        super().__init__()
        arguments = {name: value for name, value in arguments.items() if name not in IGNORED}
        unknown = set(arguments) - set(DEFAULTS)
        if unknown:
            raise TypeError(f"the released constructor has no {sorted(unknown)}")
        options = {**DEFAULTS, **arguments}
        dim, depths = options["embed_dim"], options["depths"]
        self.tubelet = options["tubelet_size"]
        stem = {"kernel": 7, "stride": 4, "padding": 2} if options["use_conv_embed"] else None
        stem = stem or {"kernel": options["patch_size"], "stride": options["patch_size"], "tubelet": self.tubelet}
        self.patch_embed = LiteralPatchEmbed(options["in_chans"], dim, norm=options["patch_norm"], **stem)
        self.layers = nn.ModuleList(
            LiteralStage(
                dim * 2**index,
                depth,
                options["focal_levels"][index],
                options["focal_windows"][index],
                index == len(depths) - 1,
                options,
            )
            for index, depth in enumerate(depths)
        )
        width = dim * 2 ** (len(depths) - 1)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, options["num_classes"])

    def forward(self, pixel_values):
        clips, frames = pixel_values.shape[:2]
        x = pixel_values.flatten(0, 1) if self.tubelet == 1 else pixel_values.transpose(1, 2)
        x, height, width = self.patch_embed(x)
        steps = x.shape[0] // clips
        for stage in self.layers:
            x, height, width = stage(x, steps, height, width)
        x = self.norm(x).transpose(1, 2)
        x = F.adaptive_avg_pool1d(x, 1).flatten(1)
        return self.head(x.view(clips, steps, -1).mean(1))
