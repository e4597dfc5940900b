# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""Is model A really better than model B on the same videos? The paired difference, averaged over training seeds, with its interval.

    effvid evaluate runA/model DATA --predictions a-0.jsonl     # and so on, one file per seed
    python examples/compare_predictions.py --a a-*.jsonl --b b-*.jsonl

Each file holds one line per video. For every video the share of A's seeds that got it right, minus that of B's, is one number; the
interval resamples videos (a percentile bootstrap), so that clips which both find hard cancel. It does not cover the luck of the seeds:
their accuracies are printed one by one.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from hf_effvid.evaluation.intervals import bootstrap_interval
from hf_effvid.evaluation.results import Metric, ResultEntry, add_results, current_provenance


def correctness(path: Path) -> dict[str, bool]:
    """Video -> was the highest score the right class."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {r["source"]: int(np.argmax(r["scores"])) == r["label"] for r in records if r.get("scores") is not None}


def over_seeds(paths: list[Path]) -> tuple[list[str], np.ndarray]:
    """The videos, and (seeds, videos) of right answers; every file must hold the same videos."""
    files = [correctness(path) for path in paths]
    videos = sorted(files[0])
    for path, answers in zip(paths, files, strict=True):
        if sorted(answers) != videos:
            raise SystemExit(f"{path} holds other videos than {paths[0]}: evaluate both on the same data set")
    return videos, np.array([[answers[video] for video in videos] for answers in files], dtype=float)


def summary(name: str, right: np.ndarray) -> Metric:
    per_video = right.mean(0)
    low, high = bootstrap_interval(lambda index: per_video[index].mean(), len(per_video), seed=0)
    seeds = ", ".join(f"{accuracy:.1%}" for accuracy in right.mean(1))
    print(f"{name}: {per_video.mean():.1%} [{low:.1%}, {high:.1%}]  seeds: {seeds}")
    return Metric(
        f"top1 of {name}, mean over seeds",
        float(per_video.mean()),
        len(per_video),
        (low, high),
        "bootstrap over videos 95%",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--a", type=Path, nargs="+", required=True, help="predictions of model A, one file per seed")
    parser.add_argument("--b", type=Path, nargs="+", required=True, help="predictions of model B")
    parser.add_argument("--label", default="A against B", help="what is compared, in words")
    parser.add_argument("--name", default="unnamed", help="name of the data set in the results")
    parser.add_argument("--model-name", default="video-focalnet-mini", help="name of the model in the results")
    parser.add_argument("--results", type=Path, help="results file (JSON) to extend")
    args = parser.parse_args()

    videos, a = over_seeds(args.a)
    others, b = over_seeds(args.b)
    if videos != others:
        raise SystemExit("A and B were not evaluated on the same videos")
    difference = a.mean(0) - b.mean(0)
    low, high = bootstrap_interval(lambda index: difference[index].mean(), len(videos), seed=0)
    print(f"{args.label}, {args.name}, {len(videos)} videos, {len(a)} and {len(b)} seeds")
    metrics = [summary("A", a), summary("B", b)]
    print(f"difference {difference.mean():+.1%} [{low:+.1%}, {high:+.1%}]")
    metrics.append(
        Metric(
            "top1 difference, A minus B",
            float(difference.mean()),
            len(videos),
            (low, high),
            "paired bootstrap over videos 95%",
        )
    )
    if args.results:
        entry = ResultEntry(
            task="video-classification",
            model=args.model_name,
            dataset=args.name,
            split="test",
            metrics=tuple(metrics),
            variant=args.label,
            provenance=current_provenance(),
            notes=(f"{len(a)} training seeds of A, {len(b)} of B; accuracies of A per seed: {np.round(a.mean(1), 4).tolist()}, "
                   f"of B: {np.round(b.mean(1), 4).tolist()}",),
        )  # fmt: skip
        add_results(args.results, [entry])


if __name__ == "__main__":
    main()
