# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""Do modulators show what a Video-FocalNet decides by? Deletion and insertion curves on labelled videos, against Grad-CAM and chance.

    bash examples/real_videos.sh FOLDER NAME        # trains the models: three seeds
    python examples/score_explanations.py outputs/real_videos/NAME/scratch-?/model --data FOLDER --name NAME \
        --results model_cards/results/explanations-NAME.json --picture docs/images/explanations-NAME.png

Cells of a clip (one step in time, one site of the last stage) are hidden in the order that a map gives, the most important first
(deletion: the probability of the predicted class should fall at once), or shown in that order (insertion: it should rise at once). Maps:
spatial modulator, temporal modulator, their product; baselines: Grad-CAM on the last stage, a centre prior, random orders. Hidden
cells show the mean colour of the clip; with `--fill still` the mean of their place over time, so that only motion is hidden.

Several models are training seeds: their curves are averaged video by video. Intervals resample videos; the seeds stand one by one in
the notes of the results. With two fills, the picture of the second gets its name added.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from hf_effvid import load_video_dataset
from hf_effvid.evaluation.faithfulness import FILLS, score_explanations
from hf_effvid.evaluation.faithfulness_report import FaithfulnessReport
from hf_effvid.evaluation.results import add_results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="checkpoint folders of one architecture, one per training seed")
    parser.add_argument("--data", required=True, help="folder or list of labelled videos")
    parser.add_argument("--split", default="test")
    parser.add_argument("--name", help="name of the data set in the results; default: that of the folder")
    parser.add_argument("--model-name", default="video-focalnet-mini", help="name of the model in the results")
    parser.add_argument("--fill", nargs="+", choices=FILLS, default=["colour", "still"], help="what hidden cells show")
    parser.add_argument("--block", type=int, default=-1, help="block that the modulators come from")
    parser.add_argument("--num-steps", type=int, default=16, help="points of a curve")
    parser.add_argument("--max-videos", type=int, help="only the first so many")
    parser.add_argument("--results", type=Path, help="results file (JSON) to write or extend")
    parser.add_argument("--picture", type=Path, help="picture of the curves")
    args = parser.parse_args()

    videos = load_video_dataset(args.data, split=args.split)
    for number, fill in enumerate(args.fill):
        reports = [
            score_explanations(
                model,
                videos,
                block=args.block,
                fill=fill,
                num_steps=args.num_steps,
                max_videos=args.max_videos,
                dataset_name=args.name or Path(args.data).name,
                split=args.split,
            )
            for model in args.models
        ]
        report = replace(FaithfulnessReport.mean_of(reports), model_name=args.model_name)
        print(report.to_text())
        if args.results is not None:
            add_results(args.results, report.to_result_entries())
        if args.picture is not None:
            path = args.picture
            print(report.plot(path.with_stem(f"{path.stem}-{fill}") if number else path))


if __name__ == "__main__":
    main()
