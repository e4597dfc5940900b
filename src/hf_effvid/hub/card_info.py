"""What a publisher says about a checkpoint: the part of a card that cannot be measured."""

import re
from dataclasses import dataclass, field


class CardError(ValueError):
    """A card cannot be written, or one that exists is wrong."""


_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_RELATIONS = ("finetune", "adapter", "quantized", "merge")

_VIDEOMAE = """@inproceedings{tong2022videomae,
  title     = {{VideoMAE}: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training},
  author    = {Tong, Zhan and Song, Yibing and Wang, Jue and Wang, Limin},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022}
}"""
_LITE = """@inproceedings{hao2025lite,
  title     = {Principles of Visual Tokens for Efficient Video Understanding},
  author    = {Hao, Xinyue and Li, Gen and Gowda, Shreyank N. and Fisher, Robert B. and Huang, Jonathan and Arnab, Anurag and Sevilla-Lara, Laura},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year      = {2025}
}"""

BLOCK_DROP = """@inproceedings{chen2025blockdrop,
  title     = {Temporal Action Detection Model Compression by Progressive Block Drop},
  author    = {Chen, Xiaoyong and Guo, Yong and Liang, Jiaming and Zhuang, Sitong and Zeng, Runhao and Hu, Xiping},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2025}
}"""

DISTILLATION = """@misc{peng2025dualteacher,
  title         = {Revisiting Cross-Architecture Distillation: Adaptive Dual-Teacher Transfer for Lightweight Video Models},
  author        = {Peng, Ying and Ye, Hongsen and Huang, Changxin and Hu, Xiping and Chen, Jian and Zeng, Runhao},
  year          = {2025},
  eprint        = {2511.09469},
  archivePrefix = {arXiv},
  primaryClass  = {cs.CV}
}"""

# model_type -> the paper that the architecture is from
CITATIONS = {
    "video_focalnet": """@inproceedings{wasim2023videofocalnets,
  title     = {Video-FocalNets: Spatio-Temporal Focal Modulation for Video Action Recognition},
  author    = {Wasim, Syed Talal and Khattak, Muhammad Uzair and Naseer, Muzammal and Khan, Salman and Shah, Mubarak and Khan, Fahad Shahbaz},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year      = {2023}
}""",
    "videomae": _VIDEOMAE,
    "actionformer": """@inproceedings{zhang2022actionformer,
  title     = {{ActionFormer}: Localizing Moments of Actions with Transformers},
  author    = {Zhang, Chen-Lin and Wu, Jianxin and Li, Yin},
  booktitle = {European Conference on Computer Vision},
  year      = {2022}
}""",
    "lite_videomae": f"{_LITE}\n\n{_VIDEOMAE}",
    "lite_vivit": _LITE,
    "lite_vjepa2": _LITE,
    "lite_timesformer": _LITE,
    "tsm": """@inproceedings{lin2019tsm,
  title     = {{TSM}: Temporal Shift Module for Efficient Video Understanding},
  author    = {Lin, Ji and Gan, Chuang and Han, Song},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year      = {2019}
}""",
    "x3d": """@inproceedings{feichtenhofer2020x3d,
  title     = {{X3D}: Expanding Architectures for Efficient Video Recognition},
  author    = {Feichtenhofer, Christoph},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2020}
}""",
    "movinet": """@inproceedings{kondratyuk2021movinets,
  title     = {{MoViNets}: Mobile Video Networks for Efficient Video Recognition},
  author    = {Kondratyuk, Dan and Yuan, Liangzhe and Li, Yandong and Zhang, Li and Tan, Mingxing and Brown, Matthew and Gong, Boqing},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2021}
}""",
}


@dataclass(frozen=True)
class CardInfo:
    """The publisher's part of a model card. Every field is optional; what is missing is said to be missing.

    Attributes:
        title: heading; default: the repository name.
        summary: one paragraph (Markdown).
        license: licence of the *weights*, as a Hub licence id (`"apache-2.0"`, `"cc-by-nc-4.0"`, `"other"`).
        license_name, license_link: obligatory with `"other"`.
        base_model: Hub id of the model whose weights these derive from.
        base_model_relation: `"finetune"`, `"adapter"`, `"quantized"` or `"merge"`.
        teacher: Hub id or name of a teacher that was distilled; weights do not derive from it, so it is no base model.
        datasets: Hub ids of the training data.
        training_data: what it was trained on, in words, with the terms of that data.
        training_command: the command line that trained it.
        training_commit: commit of the code that trained it.
        limitations: known failures, one sentence each; two general ones are always added.
        intended_use: what it is meant for; default: what models of its task are good for.
        tags: further Hub tags.
        source_url, source_sha256: the file the weights were converted from.
        citation: BibTeX; default: the paper of the architecture.
    """

    title: str | None = None
    summary: str | None = None
    license: str = "unknown"
    license_name: str | None = None
    license_link: str | None = None
    base_model: str | None = None
    base_model_relation: str | None = None
    teacher: str | None = None
    datasets: tuple[str, ...] = ()
    training_data: str | None = None
    training_command: str | None = None
    training_commit: str | None = None
    limitations: tuple[str, ...] = ()
    intended_use: str | None = None
    tags: tuple[str, ...] = ()
    source_url: str | None = None
    source_sha256: str | None = None
    citation: str | None = field(default=None)

    def __post_init__(self):
        for name in ("datasets", "limitations", "tags"):
            value = getattr(self, name)
            if isinstance(value, str) or any(not isinstance(item, str) for item in value):
                raise CardError(f"{name} must be a list of strings, got {value!r}.")
            object.__setattr__(self, name, tuple(value))
        if not isinstance(self.license, str) or not self.license:
            raise CardError("license must be a Hub licence id; use 'unknown' when you do not know it.")
        if self.license == "other" and not (self.license_name and self.license_link):
            raise CardError("license 'other' needs license_name and license_link.")
        if self.base_model_relation and self.base_model_relation not in _RELATIONS:
            raise CardError(f"base_model_relation must be one of {_RELATIONS}, got {self.base_model_relation!r}.")
        if self.base_model_relation and not self.base_model:
            raise CardError("base_model_relation says how the weights derive from base_model: give that as well.")
        for hub_id in filter(None, (self.base_model, *self.datasets)):
            check_hub_id(hub_id)

    @classmethod
    def from_dict(cls, document: dict) -> "CardInfo":
        """From a manifest entry or a JSON file.

        Raises:
            CardError: an unknown key, or a value that does not fit.
        """
        unknown = sorted(set(document) - set(cls.__dataclass_fields__))
        if unknown:
            raise CardError(f"unknown card fields {unknown}; known are {sorted(cls.__dataclass_fields__)}.")
        return cls(**document)


def check_hub_id(name: str) -> str:
    """Returns a valid Hub id (`"org/name"` or `"name"`).

    Raises:
        CardError: it is none, for example a local path.
    """
    if not isinstance(name, str) or not _HUB_ID.fullmatch(name) or ".." in name or "--" in name:
        raise CardError(f"expected a Hub id such as 'org/name', got {name!r}.")
    return name
