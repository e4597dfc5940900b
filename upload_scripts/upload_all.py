"""Stage, verify and show (with --push: publish) every checkpoint of a manifest, one after the other.

A checkpoint that fails does not stop the others; the exit status is 1 when any failed.

    python upload_scripts/upload_all.py
    python upload_scripts/upload_all.py --only video-focalnet-tennis --push
"""

import argparse
import sys
from pathlib import Path

import yaml
from upload_model import upload_model

from hf_effvid.hub.card_info import CardInfo


MANIFEST = Path(__file__).with_name("checkpoints.yaml")
_FIELDS = {"name", "checkpoint", "card", "results", "data", "private", "tag"}


def read_manifest(path: Path) -> tuple[str, list[dict]]:
    """Organisation and entries of a manifest, checked.

    Raises:
        ValueError: something is missing, unknown or named twice; says where.
    """
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or set(document) != {"organization", "checkpoints"}:
        raise ValueError(f"{path}: expected 'organization' and 'checkpoints'.")
    entries = document["checkpoints"] or []
    for number, entry in enumerate(entries):
        where = f"{path}: checkpoint {number}"
        if not isinstance(entry, dict) or not {"name", "checkpoint"} <= set(entry):
            raise ValueError(f"{where}: needs 'name' and 'checkpoint'.")
        if set(entry) - _FIELDS:
            raise ValueError(f"{where}: unknown keys {sorted(set(entry) - _FIELDS)}; known are {sorted(_FIELDS)}.")
        CardInfo.from_dict(entry.get("card") or {})
    names = [entry["name"] for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: {twice} appear more than once.")
    return document["organization"], entries


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=MANIFEST)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these checkpoints only")
    parser.add_argument("--stage", type=Path, default=Path("outputs/staged"), help="folder for the staged checkpoints")
    parser.add_argument("--push", action="store_true", help="publish; without it nothing is sent")
    options = parser.parse_args(arguments)
    organization, entries = read_manifest(options.manifest)
    unknown = set(options.only or ()) - {entry["name"] for entry in entries}
    if unknown:
        parser.error(f"the manifest has no {sorted(unknown)}")
    failed = []
    for entry in entries:
        if options.only and entry["name"] not in options.only:
            continue
        print(f"== {entry['name']}")
        try:
            verified = upload_model(
                entry["checkpoint"],
                f"{organization}/{entry['name']}",
                stage_folder=options.stage / entry["name"],
                card=entry.get("card"),
                results=Path(entry["results"]) if entry.get("results") else None,
                data=entry.get("data"),
                publish=options.push,
                private=entry.get("private", True),
                tag=entry.get("tag"),
            )
        except (OSError, ValueError) as error:
            print(f"{entry['name']}: {error}", file=sys.stderr)
            verified = False
        if not verified:
            failed.append(entry["name"])
    done = len(entries) if not options.only else len(options.only)
    print(
        f"{done - len(failed)} of {done} checkpoints verified" + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
