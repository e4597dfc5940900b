"""What a ViT teacher sees and a CNN teacher does not, learned by a branch of the student that is dropped after training.

f_res = phi_ViT(f_ViT) - phi_CNN(f_CNN), https://huggingface.co/papers/2511.09469. That equation and the branch's parts (non-local,
squeeze-and-excitation) are the paper's. Alignment, order of the parts and the training of phi are our definition: its full text was not
at hand. phi never learns from the residual's own loss, which is lowest where both projections, and with them the target, vanish.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .distillation import kd_loss
from .full_precision import in_full_precision, lifted
from .non_local import NonLocal3d


PROJECTIONS = ("aux_ce", "orthogonal")
RESIDUALS = ("discrepancy", "vit", "none")


@in_full_precision
def tokens_to_map(tokens, grid, num_prefix_tokens=0):
    """Tokens (B, L, C), row-major over grid (T, H, W) behind class tokens that are dropped -> (B, C, T, H, W).

    Raises:
        ValueError: the number of tokens is not that of the grid.
    """
    tokens = tokens[:, num_prefix_tokens:]
    positions = grid[0] * grid[1] * grid[2]
    if tokens.shape[1] != positions:
        raise ValueError(f"A grid {tuple(grid)} has {positions} positions, got {tokens.shape[1]} tokens.")
    return tokens.transpose(1, 2).unflatten(2, tuple(grid))


@in_full_precision
def align_teacher_map(features, grid, eps=1e-6):
    """(B, C, T', H', W') averaged to grid (T, H, W), then LayerNorm over channels without affine: teachers differ in scale."""
    pooled = F.adaptive_avg_pool3d(features.detach(), tuple(grid)).movedim(1, -1)
    return F.layer_norm(pooled, pooled.shape[-1:], eps=eps).movedim(-1, 1)


@in_full_precision
def residual_loss(predicted, residual):
    """Mean squared error of the branch's output to the detached residual, both (B, C, T, H, W)."""
    return F.mse_loss(predicted, residual.detach())


class TeacherProjection(nn.Module):
    """phi_k: bias-free 1 x 1 x 1 projection to the student's channels; frozen and orthogonal with a seed, else to be trained.

    A frozen one is a buffer: no optimizer sees it, and it is saved with the rest.
    """

    def __init__(self, in_channels, out_channels, frozen_seed=None):
        super().__init__()
        # a frozen one is drawn on the CPU whatever the default device: the same everywhere
        weight = torch.empty(out_channels, in_channels, device=None if frozen_seed is None else "cpu")
        if frozen_seed is None:
            nn.init.kaiming_uniform_(weight, a=5**0.5)  # what nn.Conv3d does
            self.weight = nn.Parameter(weight)
        else:
            nn.init.orthogonal_(weight, generator=torch.Generator().manual_seed(frozen_seed))
            self.register_buffer("weight", weight)

    def forward(self, features):
        return F.conv3d(features, self.weight.to(features.dtype)[..., None, None, None])


class SqueezeExcitation3d(nn.Module):
    """x * sigmoid(W2 relu(W1 mean(x))), the mean over time and space (https://huggingface.co/papers/1709.01507)."""

    def __init__(self, channels, reduction=4):
        super().__init__()
        inner = max(channels // reduction, 1)
        self.reduce = nn.Conv3d(channels, inner, 1)
        self.expand = nn.Conv3d(inner, channels, 1)

    def forward(self, features):
        squeezed = self.reduce(features.mean(dim=(2, 3, 4), keepdim=True)).relu()
        return features * self.expand(squeezed).sigmoid()


class StructureDiscrepancyBranch(nn.Module):
    """Predicts the residual from the student's last feature map, (B, C, T, H, W) -> the same shape.

    The map is not detached: the branch's gradient is what trains the student.
    """

    def __init__(self, channels, sub_sample=False, kind="embedded_gaussian"):
        super().__init__()
        self.non_local = NonLocal3d(channels, sub_sample=sub_sample, kind=kind)
        self.squeeze_excitation = SqueezeExcitation3d(channels)
        self.project = nn.Conv3d(channels, channels, 1)

    def forward(self, features):
        return self.project(self.squeeze_excitation(self.non_local(features)))


class ResidualTarget(nn.Module):
    """f_res of a ViT and a CNN teacher, with the projections that make both comparable.

    Args:
        vit_channels, cnn_channels: of the teachers' maps; None: that teacher's map is not projected, and its part of every result is None.
        channels: of the student's map.
        num_labels: N; needed by `"aux_ce"`.
        projection: `"aux_ce"`: phi_k learns to classify, by a linear head on its pooled output (`auxiliary_loss`). `"orthogonal"`: frozen,
            drawn from `seed`, nothing to train.
        seed: see `projection`.

    Raises:
        ValueError: an unknown projection, no map at all, or no `num_labels` where they are needed.
    """

    def __init__(self, vit_channels, cnn_channels, channels, num_labels=None, projection="aux_ce", seed=0):
        super().__init__()
        if projection not in PROJECTIONS:
            raise ValueError(f"projection must be one of {', '.join(PROJECTIONS)}, got {projection!r}.")
        if projection == "aux_ce" and not num_labels:
            raise ValueError("projection='aux_ce' trains by classifying: pass num_labels, or projection='orthogonal'.")
        if vit_channels is None and cnn_channels is None:
            raise ValueError("A target needs the map of a teacher: pass vit_channels, cnn_channels or both.")
        frozen = projection == "orthogonal"
        self.projection = projection
        for role, width, own_seed in (("vit", vit_channels, 2 * seed), ("cnn", cnn_channels, 2 * seed + 1)):
            there = width is not None
            phi = TeacherProjection(width, channels, own_seed if frozen else None) if there else None
            setattr(self, f"{role}_projection", phi)
        for role, width in (("vit", vit_channels), ("cnn", cnn_channels)):
            has_head = width is not None and not frozen
            setattr(self, f"{role}_head", nn.Linear(channels, num_labels) if has_head else None)

    def project(self, vit_features, cnn_features, grid):
        """phi_ViT(A f_ViT) and phi_CNN(A f_CNN), both (B, C, *grid), in single precision; gradients reach the projections alone."""
        pairs = ((self.vit_projection, vit_features), (self.cnn_projection, cnn_features))
        present = next(features for phi, features in pairs if phi is not None)
        with torch.autocast(present.device.type, enabled=False):
            return tuple(None if phi is None else phi(align_teacher_map(features, grid)) for phi, features in pairs)

    def auxiliary_loss(self, projected, labels=None, teacher_logits=None, temperature=1.0):
        """What trains phi: the mean over the teachers of cross-entropy with labels, or KL to that teacher's own logits without them.

        Args:
            projected: both maps of `project`.
            labels: (B,), class numbers, or (B, N) shares of classes; None: `teacher_logits` say what to learn.
            teacher_logits: logits (B, N) of the ViT and of the CNN.
            temperature: of the KL.

        Returns:
            Scalar; 0 for frozen projections.

        Raises:
            ValueError: neither labels nor logits.
        """
        if self.projection == "orthogonal":
            return next(maps for maps in projected if maps is not None).new_zeros(())
        if labels is None and teacher_logits is None:
            raise ValueError("Projections learn from labels or from teacher_logits=(vit, cnn): pass one of them.")
        heads = (self.vit_head, self.cnn_head)
        wanted = (labels, labels) if labels is not None else teacher_logits
        losses = []
        for head, maps, targets in zip(heads, projected, wanted, strict=True):
            if maps is None:
                continue
            logits = lifted(head(maps.mean(dim=(2, 3, 4))))
            by_label = labels is not None
            losses.append(F.cross_entropy(logits, targets) if by_label else kd_loss(logits, targets, temperature))
        return sum(losses) / len(losses)


class StructureDiscrepancy(nn.Module):
    """Branch and target together, all that is trained beside the student and left behind with the teachers.

    Args:
        channels: of the student's map.
        vit_channels, cnn_channels: of the teachers' maps; None: that teacher is not looked at.
        num_labels, projection, seed: see `ResidualTarget`.
        sub_sample, kind: see `NonLocal3d`.
        residual: what the branch predicts: `"discrepancy"`, `"vit"`, the projected map of the ViT itself (an ablation), or `"none"`.
        cnn_feature: also predict phi_CNN(A f_CNN), by a 1 x 1 x 1 convolution of the student's map.

    Raises:
        ValueError: an unknown `residual`, or a teacher's map that is needed and not there.
    """

    def __init__(
        self,
        channels,
        vit_channels=None,
        cnn_channels=None,
        num_labels=None,
        projection="aux_ce",
        seed=0,
        sub_sample=False,
        kind="embedded_gaussian",
        residual="discrepancy",
        cnn_feature=False,
    ):
        super().__init__()
        if residual not in RESIDUALS:
            raise ValueError(f"residual must be one of {', '.join(RESIDUALS)}, got {residual!r}.")
        needed = {"vit": residual != "none", "cnn": residual == "discrepancy" or cnn_feature}
        for role, width in (("vit", vit_channels), ("cnn", cnn_channels)):
            if needed[role] and width is None:
                raise ValueError(f"residual={residual!r}, cnn_feature={cnn_feature} need {role}_channels, got None.")
        self.residual = residual
        self.branch = None if residual == "none" else StructureDiscrepancyBranch(channels, sub_sample, kind)
        self.target = ResidualTarget(vit_channels, cnn_channels, channels, num_labels, projection, seed)
        self.cnn_predictor = nn.Conv3d(channels, channels, 1) if cnn_feature else None

    def forward(self, student_features, vit_features=None, cnn_features=None, labels=None, teacher_logits=None):
        """Losses, and what tells whether they mean something.

        Args:
            student_features: (B, C, T, H, W), with its gradient.
            vit_features: (B, C_v, T_v, H_v, W_v); of tokens by `tokens_to_map`.
            cnn_features: (B, C_c, T_c, H_c, W_c).
            labels, teacher_logits: see `ResidualTarget.auxiliary_loss`.

        Returns:
            dict of scalars: `auxiliary_loss`; with a residual `residual_loss`, and without gradient `residual_rms` (a collapsing target shows
            here) and `residual_explained`, 1 - residual_loss / Var(f_res) over all elements; with `cnn_feature` `cnn_feature_loss`.
        """
        projected = self.target.project(vit_features, cnn_features, student_features.shape[2:])
        results = {"auxiliary_loss": self.target.auxiliary_loss(projected, labels, teacher_logits)}
        if self.branch is not None:
            residual = projected[0] if self.residual == "vit" else projected[0] - projected[1]
            residual = residual.detach()
            loss = residual_loss(self.branch(student_features), residual)
            results["residual_loss"] = loss
            results["residual_rms"] = residual.square().mean().sqrt()
            results["residual_explained"] = 1 - loss.detach() / residual.var(correction=0).clamp(min=1e-12)
        if self.cnn_predictor is not None:
            results["cnn_feature_loss"] = residual_loss(self.cnn_predictor(student_features), projected[1])
        return results
