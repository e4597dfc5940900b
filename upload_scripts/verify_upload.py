"""Check a published repository from the outside: load, logits, pipeline, card and, with --data, the claimed accuracy.

The repository's code is executed. Run it only on repositories you trust.

    python upload_scripts/verify_upload.py org/video-focalnet-tennis --data tennis/ --max-videos 100
"""

import argparse
import json
import sys
from pathlib import Path

from upload_model import default_results

from hf_effvid.hub.verify import verify_checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo_id", help="org/name, or a folder")
    parser.add_argument("--revision", help="branch, tag or commit")
    parser.add_argument("--results", type=Path, help="default: model_cards/results/<name>.json")
    parser.add_argument("--reference", type=Path, help="reference logits, <stage folder>.reference.json")
    parser.add_argument("--data", help="data set to re-check the claimed accuracy on")
    parser.add_argument("--split", default="test")
    parser.add_argument("--dataset-name", help="name of the data set in the card, when it claims several")
    parser.add_argument("--max-videos", type=int)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    rows = None
    if options.data:
        from hf_effvid.data.loading import load_video_dataset

        rows = load_video_dataset(options.data, split=options.split)
    report = verify_checkpoint(
        options.repo_id,
        rows,
        options.reference,
        results=options.results or default_results(options.repo_id),
        revision=options.revision,
        dataset_name=options.dataset_name,
        split=options.split if options.data else None,
        max_videos=options.max_videos,
    )
    print(json.dumps(report.to_dict(), indent=2) if options.json else report.to_text())
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
