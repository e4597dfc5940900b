"""What an engineer does in her first minute with the installed wheel: write a clip, build a model, save, load, classify."""

import importlib.util
import tempfile
from pathlib import Path

import av
import numpy as np


def write_clip(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(12):
            image = np.full((48, 64, 3), 20 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    from transformers import pipeline

    import hf_effvid

    assert "site-packages" in hf_effvid.__file__, hf_effvid.__file__
    assert importlib.util.find_spec("pytest") is None, "the environment is not clean"
    folder = Path(tempfile.mkdtemp())
    write_clip(folder / "clip.mp4")

    config = hf_effvid.VideoFocalNetConfig(
        embed_dim=12, depths=[1, 1], focal_levels=[1, 1], focal_windows=[3, 3], num_frames=4
    )
    model = hf_effvid.VideoFocalNetForVideoClassification(config)
    model.save_pretrained(folder / "model")
    hf_effvid.EffVidVideoProcessor(
        num_frames=4, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder / "model")

    stock = pipeline("video-classification", model=str(folder / "model"))(str(folder / "clip.mp4"), top_k=1)
    ours = pipeline(
        "video-classification", model=str(folder / "model"), pipeline_class=hf_effvid.VideoClassificationPipeline
    )(folder / "clip.mp4", top_k=1)
    assert abs(stock[0]["score"] - ours[0]["score"]) < 1e-5, (stock, ours)
    print("smoke test passed:", ours)


if __name__ == "__main__":
    main()
