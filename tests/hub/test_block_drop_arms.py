"""The table of several ways to drop blocks."""

from hf_effvid.evaluation.results import Cost, Metric, Provenance, ResultEntry
from hf_effvid.hub.block_drop_arms import arms_table


def entry(arm, dropped, value, seed=None, **differences):
    variant = f"{arm}, {dropped} of 8 blocks dropped"
    metrics = [Metric("top1", value, 57, None if seed is not None else (value - 0.1, value + 0.1), "bootstrap")]
    metrics += [
        Metric(f"top1 minus {name}", gap, 57, (gap - 0.1, gap + 0.1), "paired") for name, gap in differences.items()
    ]
    return ResultEntry(
        "video-classification", "thin", "gestures", "test", tuple(metrics), Provenance("compare", seed=seed, date="2026-11-20"),
        cost=Cost(gmacs=0.0123 * (8 - dropped)), protocol={"arm": arm, "dropped_blocks": dropped, "num_blocks": 8},
        variant=variant if seed is not None else f"{variant}, mean of 2 seeds",
    )  # fmt: skip


def test_a_row_per_arm_and_number_of_blocks_with_its_seeds():
    entries = [entry("uncompressed", 0, 0.5)]
    for dropped in (1, 2):
        entries += [entry("progressive", dropped, 0.5 + seed / 10 - dropped / 100, seed) for seed in (0, 1)]
        entries += [entry("progressive", dropped, 0.55, uncompressed=0.05, random=-0.02)]
    told, empty, header, ruler, *rows = arms_table(entries).splitlines()
    assert told == "thin on gestures (test), n = 57, in per cent." and not empty
    assert header == "|  | dropped | GMACs | top1 [95 %] | seeds | minus uncompressed | minus random |"
    assert ruler.count("---") == 7 and len(rows) == 3
    assert rows[0] == "| uncompressed | 0 of 8 | 0.0984 | 50.0 [40.0, 60.0] | - | - | - |"
    assert rows[2] == (
        "| progressive | 2 of 8 | 0.0738 | 55.0 [45.0, 65.0] | 48.0, 58.0 | +5.0 [-5.0, +15.0] | -2.0 [-12.0, +8.0] |"
    )


def test_other_entries_make_no_table():
    other = ResultEntry(
        "video-classification", "m", "d", "test", (Metric("top1", 0.5, 9),), Provenance("x", date="2026-11-20")
    )
    assert arms_table([other]) == ""
