#!/usr/bin/env bash
# The study of docs/real_videos.md: a small Video-FocalNet on a folder of real clips, 3 seeds, with and without the temporal branch.
#
#   bash examples/real_videos.sh DATA_FOLDER NAME [OUTPUT_FOLDER]
#
# DATA_FOLDER has train / validation / test clips; the test split is looked at only at the end. Results go to
# model_cards/results/real-NAME.json, per-video predictions to OUTPUT_FOLDER. NO_TEMPORAL=0 leaves out the models without the branch. About 25 minutes on two CPU cores for 370 short clips.
set -euo pipefail
data=$1 name=$2 out=${3:-outputs/real_videos}/$2
config=examples/configs/real_videos.yaml results=${RESULTS_DIR:-model_cards/results}/real-$name.json
mkdir -p "$out"

train() { # variant seed extra options
    local run="$out/$1-$2"
    [ -f "$run/training.json" ] || effvid train "$data" --config $config --output-dir "$run" --seed "$2" --overwrite --quiet "${@:3}"
}
evaluate() { # variant seed variant-in-results extra options
    local run="$out/$1-$2" key
    key=$(printf '%s' "$3" | tr -cs 'a-z0-9' '-')
    effvid evaluate "$run/model" "$data" --split test --seed "$2" --name "$name" --model-name video-focalnet-mini --variant "$3" \
        --results "$results" --predictions "$out/$key-$2.jsonl" --batch-size 48 --quiet "${@:4}"
}

for seed in 0 1 2; do
    train scratch $seed
    [ "${NO_TEMPORAL:-1}" = 0 ] || train no-temporal $seed --set model.temporal_encoding=none
    evaluate scratch $seed "from scratch"
    evaluate scratch $seed "from scratch, test frames shuffled" --frame-order shuffled
    [ "${NO_TEMPORAL:-1}" = 0 ] || evaluate no-temporal $seed "from scratch, no temporal branch"
done
[ "${NO_TEMPORAL:-1}" = 0 ] || python examples/compare_predictions.py --name "$name" --results "$results" \
    --label "temporal branch against none" --a "$out"/from-scratch-[0-9].jsonl --b "$out"/from-scratch-no-temporal-branch-[0-9].jsonl
python examples/compare_predictions.py --name "$name" --results "$results" --label "frames in order against shuffled" \
    --a "$out"/from-scratch-[0-9].jsonl --b "$out"/from-scratch-test-frames-shuffled-[0-9].jsonl
