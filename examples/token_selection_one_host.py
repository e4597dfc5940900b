# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""One host for every budget: a short fine-tuning under random keep ratios, and what it is worth at each budget.

    python -c "import hf_effvid; hf_effvid.make_motion_dataset('motion_clips')"
    python examples/token_selection_one_host.py --data motion_clips      # -> model_cards/results/token-selection-one-host.json

The committed host is fine-tuned for three epochs on the training clips, three seeds each: every step with another share of the tokens, and
as a control with all tokens, for as many steps. The test clips are then shown to the host as it was, to the control and to the other,
with random tokens (5 draws) and with those of the largest embeddings, at every keep ratio. Differences are paired over clips. An arm that
trains the host: its numbers are not those of a selection, which leaves it as it is. About eight minutes of one CPU core.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from hf_effvid.evaluation.results import Metric, ResultEntry, add_results
from hf_effvid.evaluation.selection_report import SelectionReport
from hf_effvid.training.classification import train_classifier
from hf_effvid.training.selection_settings import StudySettings
from hf_effvid.training.selection_study import study_models


HOST = Path(__file__).resolve().parent / "checkpoints" / "videomae-motion"
SHARES = [1.0, 0.7, 0.5, 0.3, 0.2, 0.1]
HOSTS = {"fine-tuned with all tokens": None, "fine-tuned under random keep ratios": SHARES}
BEFORE = "as it was"
SCORES = ("random", "embedding_norm")
OPTIMIZER = {"per_device_train_batch_size": 16, "learning_rate": 5e-4, "weight_decay": 0.02, "label_smoothing": 0.05}


def fine_tuned(given, name) -> list[Path]:
    """Checkpoints of a host, one per seed; what an earlier run finished is kept."""
    folders = []
    for seed in given.seeds:
        run = given.work / name.replace(" ", "-") / str(seed)
        if not (run / "training.json").is_file():
            arguments = OPTIMIZER | {"num_train_epochs": given.epochs, "seed": seed, "report_to": "none"}
            # the last state, and not the one that happens to be best with all tokens
            arguments |= {"eval_strategy": "no", "save_strategy": "no", "random_keep_ratios": HOSTS[name]}
            train_classifier(
                given.model, given.data, output_dir=run, args=arguments, augmentation="none", cache="ram",
                overwrite=True, progress=False,
            )  # fmt: skip
        folders.append(run / "model")
    return folders


def studied(given, name) -> SelectionReport:
    models = [given.model] if name == BEFORE else fine_tuned(given, name)
    settings = StudySettings(
        arms=SCORES, train_selector=False, timing_rounds=0, examples=0, batch_size=48, keep_ratios=tuple(SHARES[1:])
    )
    folder = given.work / "studies" / name.replace(" ", "-")
    return study_models(
        models, given.data, folder, settings, dataset_name="generated motions", name="videomae-motion", progress=False,
        seed=given.seeds[0] if name != BEFORE else None,
    )  # fmt: skip


def entries_of(report, before, name) -> list[ResultEntry]:
    """Accuracy at every budget, with the difference to the host as it was."""
    entries = []
    for result in report.results:
        metrics = [report.top1(result)]
        if name != BEFORE:
            earlier = before.by_key[result.key]
            metrics.append(report.difference(result, earlier, "top1 minus the host as it was"))
        notes = ()
        if report.num_models > 1:
            notes = ("training seeds: " + ", ".join(f"{accuracy:.1%}" for accuracy in result.draws),)
        arm = SCORES[0] if result.keep_ratio == 1 else result.arm  # all tokens are all tokens
        entries.append(
            ResultEntry(
                task="token-selection",
                model=report.model_name,
                dataset=report.dataset_name,
                split=report.split,
                metrics=tuple(metrics),
                variant=f"{name}: {arm}, keep {result.keep_ratio:g}",
                notes=notes,
                cost=replace(result.cost),
                provenance=replace(report.provenance, seed=None),
                protocol={"num_frames": report.protocol["num_frames"], "draws": report.protocol["draws"]},
            )  # fmt: skip
        )
    return entries


def table(reports) -> str:
    """Accuracies in %, one line per host and score."""
    rows = [f"{'':<58}" + "".join(f"{share:>8g}" for share in SHARES)]
    for name, report in reports.items():
        for score in SCORES:
            found = [report.full, *(report.get(score, share) for share in SHARES[1:])]
            rows.append(f"{name + ', ' + score:<58}" + "".join(f"{100 * one.accuracy:>8.1f}" for one in found))
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(HOST), help="a video transformer that knows the classes of the clips")
    parser.add_argument("--data", default="motion_clips", help="made by hf_effvid.make_motion_dataset")
    parser.add_argument("--work", type=Path, default=Path("token_selection_one_host"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--results", type=Path, default=Path("model_cards/results/token-selection-one-host.json"))
    given = parser.parse_args()
    reports = {name: studied(given, name) for name in (BEFORE, *HOSTS)}
    tuned, control = (reports[name] for name in reversed(HOSTS))
    entries = [one for name, report in reports.items() for one in entries_of(report, reports[BEFORE], name)]
    against = [
        tuned.difference(result, control.by_key[result.key], f"{result.arm}, keep {result.keep_ratio:g}")
        for result in tuned.results
    ]
    metrics = tuple(replace(one, name=one.name.replace("full, keep 1", "all tokens")) for one in against)
    entries.append(replace(entries[-1], variant="random keep ratios minus all tokens", metrics=metrics, notes=()))
    add_results(given.results, entries)
    print(table(reports), *(f"{one.name}: {one.value:+.1%} {_interval(one)}" for one in metrics), sep="\n")


def _interval(metric: Metric) -> str:
    low, high = metric.interval
    return f"[{low:+.1%}, {high:+.1%}]"


if __name__ == "__main__":
    main()
