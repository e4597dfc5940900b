"""Stage one checkpoint, verify it in a fresh interpreter, show what a push would do; with --push, publish it.

Nothing is sent without --push. Log in first with `hf auth login`.

    python upload_scripts/upload_model.py runs/tennis/model org/video-focalnet-tennis
    python upload_scripts/upload_model.py runs/tennis/model org/video-focalnet-tennis --push
"""

import argparse
import sys
import tempfile
from pathlib import Path

from hf_effvid.hub.published_tasks import task_of_checkpoint
from hf_effvid.hub.push import push_checkpoint
from hf_effvid.hub.staging import stage_checkpoint
from hf_effvid.hub.verify import verify_checkpoint


CARDS = Path(__file__).resolve().parents[1] / "model_cards"


def upload_model(
    checkpoint: str,
    repo_id: str,
    *,
    stage_folder: Path,
    card=None,
    results: Path | None = None,
    data: dict | None = None,
    publish: bool = False,
    private: bool = True,
    tag: str | None = None,
) -> bool:
    """Stage, verify, push (or show). Prints what happens.

    Args:
        checkpoint: training output, checkpoint folder or Hub id.
        repo_id: `"org/name"`.
        stage_folder: folder to write; an earlier staging in it is replaced.
        card: fields of the card (dict), or a .yaml or .md file.
        results: results file; default: `model_cards/results/<name>.json` when it exists.
        data: `{"source", "split", "name", "max_videos"}` to re-check the recorded accuracy on, a data set or a detector's
            annotations; `name` is the data set's in the results, where they hold several.
        publish: push for real.
        private: visibility of a new repository.
        tag: tag for the commit.

    Returns:
        Whether the checkpoint was verified; only then it is pushed.
    """
    results = results or default_results(repo_id)
    folder = stage_checkpoint(checkpoint, stage_folder, card=card, results=results, repo_id=repo_id, overwrite=True)
    rows, claim = None, {}
    if data is not None:
        claim = {"dataset_name": data.get("name"), "split": data.get("split", "test")}
        rows = task_of_checkpoint(str(folder)).load_data(data["source"], claim["split"])
    report = verify_checkpoint(folder, rows, results=results, max_videos=(data or {}).get("max_videos"), **claim)
    print(report.to_text(), end="\n\n")
    if not report.ok:
        print(f"{repo_id}: not verified, so not pushed", file=sys.stderr)
        return False
    print(push_checkpoint(folder, repo_id, dry_run=not publish, private=private, tag=tag).to_text())
    return True


def default_results(repo_id: str) -> Path | None:
    """The results file of a repository in this checkout, None when it has none."""
    path = CARDS / "results" / f"{repo_id.rsplit('/', 1)[-1]}.json"
    return path if path.is_file() else None


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="training output, checkpoint folder or Hub id")
    parser.add_argument("repo_id", help="org/name")
    parser.add_argument("--stage", type=Path, help="keep the staged folder here; default: a temporary one")
    parser.add_argument("--card", type=Path, help="card fields (.yaml) or a finished card (.md)")
    parser.add_argument("--results", type=Path, help="default: model_cards/results/<name>.json")
    parser.add_argument("--data", help="data set to re-check the recorded accuracy on")
    parser.add_argument("--split", default="test")
    parser.add_argument("--dataset-name", help="name of the data set in the results, when they hold several")
    parser.add_argument("--max-videos", type=int)
    parser.add_argument("--tag")
    parser.add_argument("--public", action="store_true", help="a new repository is public; default: private")
    parser.add_argument("--push", action="store_true", help="publish; without it nothing is sent")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as work:
        verified = upload_model(
            options.checkpoint,
            options.repo_id,
            stage_folder=options.stage or Path(work) / options.repo_id.rsplit("/", 1)[-1],
            card=options.card,
            results=options.results,
            data={
                "source": options.data,
                "split": options.split,
                "name": options.dataset_name,
                "max_videos": options.max_videos,
            }
            if options.data
            else None,
            publish=options.push,
            private=not options.public,
            tag=options.tag,
        )
    return 0 if verified else 1


if __name__ == "__main__":
    sys.exit(main())
