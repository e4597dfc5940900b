#!/usr/bin/env bash
# Progressive block drop on a folder of real clips, or of untrimmed videos: what does each dropped block cost, and is the method the reason?
#
#   bash examples/real_block_drop.sh DATA_FOLDER NAME [OUTPUT_FOLDER]
#
# DATA_FOLDER has train / validation / test clips: a VideoMAE of 8 thin blocks is trained from scratch with 3 seeds (configs/block_drop/
# real_videomae.yaml), and blocks are taken from it. Or it holds annotations.json and videos: with CLIPS, clips of the training videos' actions,
# classifiers are trained on these, and detectors on their trunks (real_detector.yaml); HOSTS='.../host-{seed}/model' are classifiers that exist
# already. The test split is looked at once, at the end. Results go to model_cards/results/block-drop-NAME.json, the picture to docs/images.
# Starting again continues. SEEDS="0" HOST_STEPS=2 STEPS=2 is for a look at whether it runs; WORKERS=2 runs seeds beside each other.
# DROP=4 blocks, STEPS=200 of recovery each; ARMS: more arguments of real_block_drop.py, such as ARMS='--arms progressive'.
set -euo pipefail
data=$1 name=$2 out=${3:-outputs/block_drop}/$2
here=$(dirname "$0")
configs=$here/configs/block_drop
seeds=${SEEDS:-0 1 2}
results=${RESULTS_DIR:-model_cards/results}/block-drop-$name.json
picture=${PICTURES:-docs/images}/block-drop-$name.png
mkdir -p "$out"
shorter=()
[ -z "${HOST_STEPS:-}" ] || shorter=(--set training.max_steps="$HOST_STEPS" --set training.eval_steps="$HOST_STEPS" --set training.save_steps="$HOST_STEPS")

train() { # run seed data further options
    [ -f "$1/training.json" ] || effvid train "$3" --output-dir "$1" --seed "$2" --quiet --resume ${shorter[@]+"${shorter[@]}"} "${@:4}"
}

hosts=${HOSTS:-$out/classifier-{seed\}/model}
if [ -z "${HOSTS:-}" ]; then
    for seed in $seeds; do
        train "$out/classifier-$seed" "$seed" "${CLIPS:-$data}" --config "$configs/real_videomae.yaml"
    done
fi
options=(--config "$configs/real_videomae.yaml")
if [ -f "$data/annotations.json" ]; then
    small=$out/small
    [ -f "$out/annotations.json" ] || python "$here/detection_splits.py" "$data" --output "$out/annotations.json"
    python "$here/detection_small_copies.py" "$out/annotations.json" --root "$data" --output "$small" --fps "${FPS:-5}" --size 64
    for seed in $seeds; do
        train "$out/detector-$seed" "$seed" "$out/annotations.json" --root "$small" --config "$configs/real_detector.yaml" \
            --set processor.feature_fps="${FPS:-5}" --model "${hosts//\{seed\}/$seed}"
    done
    data=$out/annotations.json hosts=$out/detector-{seed}/model
    options=(--root "$small" --model-name actionformer-videomae-thin --batch-size 4)
fi
study=(python "$here/real_block_drop.py" "$data" --hosts "$hosts" --name "$name" --work "$out/arms" --drop "${DROP:-4}" --steps "${STEPS:-200}"
    "${options[@]}" ${ARMS:-})
# one process per seed, as many at a time as there are workers; each finds the others' finished arms
printf '%s\n' $seeds | xargs -P "${WORKERS:-1}" -I SEED "${study[@]}" --seeds SEED --train-only
"${study[@]}" --seeds $seeds --split "${SPLIT:-test}" --results "$results" --picture "$picture" ${NOTE:+--note "$NOTE"}
