"""The papers that model cards cite: of architectures, and of the methods by which a checkpoint was made."""

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

# network of torchvision -> its paper
_R2PLUS1D = """@inproceedings{tran2018closer,
  title     = {A Closer Look at Spatiotemporal Convolutions for Action Recognition},
  author    = {Tran, Du and Wang, Heng and Torresani, Lorenzo and Ray, Jamie and LeCun, Yann and Paluri, Manohar},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition},
  year      = {2018}
}"""
_VIDEO_SWIN = """@inproceedings{liu2022videoswin,
  title     = {Video Swin Transformer},
  author    = {Liu, Ze and Ning, Jia and Cao, Yue and Wei, Yixuan and Zhang, Zheng and Lin, Stephen and Hu, Han},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2022}
}"""
NETWORK_CITATIONS = {
    "r2plus1d_18": _R2PLUS1D,
    "r3d_18": _R2PLUS1D,
    "mc3_18": _R2PLUS1D,
    "s3d": """@inproceedings{xie2018s3d,
  title     = {Rethinking Spatiotemporal Feature Learning: Speed-Accuracy Trade-offs in Video Classification},
  author    = {Xie, Saining and Sun, Chen and Huang, Jonathan and Tu, Zhuowen and Murphy, Kevin},
  booktitle = {European Conference on Computer Vision},
  year      = {2018}
}""",
    "mvit_v1_b": """@inproceedings{fan2021mvit,
  title     = {Multiscale Vision Transformers},
  author    = {Fan, Haoqi and Xiong, Bo and Mangalam, Karttikeya and Li, Yanghao and Yan, Zhicheng and Malik, Jitendra and Feichtenhofer, Christoph},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision},
  year      = {2021}
}""",
    "mvit_v2_s": """@inproceedings{li2022mvitv2,
  title     = {{MViTv2}: Improved Multiscale Vision Transformers for Classification and Detection},
  author    = {Li, Yanghao and Wu, Chao-Yuan and Fan, Haoqi and Mangalam, Karttikeya and Xiong, Bo and Malik, Jitendra and Feichtenhofer, Christoph},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2022}
}""",
    "swin3d_t": _VIDEO_SWIN,
    "swin3d_s": _VIDEO_SWIN,
    "swin3d_b": _VIDEO_SWIN,
}


def citation_of(config) -> str | None:
    """BibTeX of the paper that a model's architecture is from, None where we know none."""
    return CITATIONS.get(config.model_type) or NETWORK_CITATIONS.get(getattr(config, "network", None))
