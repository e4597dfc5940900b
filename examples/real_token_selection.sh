#!/usr/bin/env bash
# Token selection on a folder of real clips: a small VideoMAE from scratch with 3 seeds, LITE's selector on each, and the whole study.
#
#   bash examples/real_token_selection.sh DATA_FOLDER NAME [OUTPUT_FOLDER]
#
# DATA_FOLDER has train / validation / test clips; the test split is looked at only in the study. Results, averaged over the seeds video by
# video, go to model_cards/results/token-selection-NAME.json, tables and pictures to OUTPUT_FOLDER/NAME/study. Starting again continues.
# SEEDS="0" STEPS=2 is for a look at whether it runs. About 20 minutes on two quiet CPU cores for 300 short clips, 15 of them for training.
set -euo pipefail
data=$1 name=$2 out=${3:-outputs/token_selection}/$2
config=examples/configs/token_selection/real_videomae.yaml
results=${RESULTS_DIR:-model_cards/results}/token-selection-$name.json
steps=${STEPS:-1600}
every=$((steps < 200 ? steps : 200))
mkdir -p "$out"

models=()
for seed in ${SEEDS:-0 1 2}; do
    run="$out/host-$seed"
    [ -f "$run/training.json" ] || effvid train "$data" --config "$config" --output-dir "$run" --seed "$seed" --quiet --resume \
        --set training.max_steps="$steps" --set training.eval_steps="$every" --set training.save_steps="$every"
    models+=(--model "$run/model")
done
effvid select study "${models[@]}" --data "$data" --output-dir "$out/study" --seed 0 --name "$name" --model-name videomae-mini \
    --variant shuffled --results "$results" --quiet
