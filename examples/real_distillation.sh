#!/usr/bin/env bash
# A small student with two teachers on a folder of real clips: is the method the reason, and does the student exceed its teachers?
#
#   bash examples/real_distillation.sh DATA_FOLDER NAME [OUTPUT_FOLDER]
#
# DATA_FOLDER has train / validation / test clips. Two teachers are trained: a TSM on EfficientNet-Lite0 from ImageNet weights, with more
# frames and pixels than the student (configs/distillation/real_cnn_teacher.yaml), and a small VideoMAE from scratch (VIT_CONFIG). Their answers
# to eight random views of every clip are stored. Then the student (real_student.yaml) learns in five ways with 3 seeds, from the same views:
# alone, from the logits of one teacher or the other, from those of both weighted alike, and with the full method. Beside it, networks of
# about as much training time from random weights (real_rivals.yaml; Video-FocalNet as in real_videos.sh). The test split is looked at once, at the end. Results go to model_cards/results/distillation-NAME.json.
# Starting again continues. STAGES="teachers students rivals evaluate speed compare" are the parts; SEEDS="0 1 2", ARMS="full alone vit cnn uniform",
# RIVALS="video_focalnet tsm x3d s3d r2plus1d" and RIVAL_SEEDS what they hold; SPLIT=validation looks there; STEPS=2 is for a look at whether it
# runs. VIT_START is a folder that the ViT starts from, VIT_STEPS how long it learns; CNN_TEACHER=finer a choice of its recipe.
set -euo pipefail
data=$1 name=$2 out=${3:-outputs/distillation}/$2
here=$(dirname "$0")
configs=$here/configs/distillation
stages=" ${STAGES:-teachers students rivals evaluate speed compare} " seeds=${SEEDS:-0 1 2} arms=${ARMS:-full alone vit cnn uniform} rivals=${RIVALS:-video_focalnet tsm x3d s3d r2plus1d}
split=${SPLIT:-test}
results=${RESULTS_DIR:-model_cards/results}/distillation-$name.json
mkdir -p "$out"
# what glibc gives back to the system it must fetch again: half of a training step on two cores of ours
export MALLOC_MMAP_MAX_=${MALLOC_MMAP_MAX_:-0} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-20000000000} MALLOC_TOP_PAD_=${MALLOC_TOP_PAD_:-67108864}
shorter=()
[ -z "${STEPS:-}" ] || shorter=(--set training.max_steps="$STEPS" --set training.eval_steps="$STEPS" --set training.save_steps="$STEPS")

run() { # folder seed effvid's command and options: a run, with its processor seconds beside it
    [ -f "$1/training.json" ] && return
    mkdir -p "$1"
    { TIMEFORMAT='%U %S'; time effvid "${@:3}" --output-dir "$1" --seed "$2" --quiet --resume ${shorter[@]+"${shorter[@]}"} 2>&3; } 3>&2 2>"$1/processor_seconds.txt"
}

start=$out/imagenet-tsm
[ -f "$start/config.json" ] || python "$here/imagenet_tsm.py" "$start"
vit=$out/teacher-vit cnn=$out/teacher-cnn
if [[ $stages == *" teachers "* ]]; then
    run "$cnn" 0 train "$data" --model "$start" --config "$configs/real_cnn_teacher.yaml" --set choose.teacher="${CNN_TEACHER:-longer}"
    run "$vit" 0 train "$data" --config "${VIT_CONFIG:-$here/configs/block_drop/real_videomae.yaml}" ${VIT_START:+--model "$VIT_START"} \
        ${VIT_STEPS:+--set training.max_steps="$VIT_STEPS"}
fi

# what each arm is told; a run with one teacher or with none leaves out the terms for which it has no teacher
# stored answers: logits with or without feature maps, to frames decoded at the size of the largest model of a run
logits_alone="--set distillation.residual=none --set distillation.relation_weight=0"
declare -A told=(
    [alone]="--set distillation.kd_weight=0 $logits_alone"
    [vit]="--teacher-vit $vit/model --cache-teachers $out/answers-vit $logits_alone"
    [cnn]="--teacher-cnn $cnn/model --cache-teachers $out/answers-logits $logits_alone"
    [uniform]="--teacher-vit $vit/model --teacher-cnn $cnn/model --cache-teachers $out/answers-logits --set distillation.weighting=uniform $logits_alone"
    [full]="--teacher-vit $vit/model --teacher-cnn $cnn/model --cache-teachers $out/answers"
)
if [[ $stages == *" students "* ]]; then
    for seed in $seeds; do
        for arm in $arms; do
            run "$out/$arm-$seed" "$seed" distill --data "$data" --student "$start" --config "$configs/real_student.yaml" \
                --views 8 ${told[$arm]}
        done
    done
fi
if [[ $stages == *" rivals "* ]]; then
    for seed in ${RIVAL_SEEDS:-$seeds}; do
        for rival in $rivals; do
            recipe=(--config "$configs/real_rivals.yaml" --set choose.rival="$rival")
            [ "$rival" != video_focalnet ] || recipe=(--config "$here/configs/real_videos.yaml") # 1,600 steps of 16 clips
            run "$out/$rival-$seed" "$seed" train "$data" "${recipe[@]}"
        done
    done
fi
evaluate() { # run seed
    effvid evaluate "$out/$1/model" "$data" --split "$split" --seed "$2" --name "$name" --predictions "$out/$split-$1.jsonl" --batch-size 16 --quiet
}
declare -A words=([full]="full" [alone]="student alone" [vit]="ViT only" [cnn]="CNN only" [uniform]="uniform")
compared=(--arm "CNN teacher=teacher-cnn" --arm "ViT teacher=teacher-vit") timed=("$cnn/model" "$vit/model" "$out/${arms%% *}-${seeds%% *}/model")
runs=(teacher-cnn:0 teacher-vit:0)
for arm in $arms; do
    compared+=(--arm "${words[$arm]}=$arm")
    for seed in $seeds; do runs+=("$arm-$seed:$seed"); done
done
for rival in $rivals; do
    compared+=(--arm "$rival from random weights=$rival") timed+=("$out/$rival-${seeds%% *}/model")
    for seed in ${RIVAL_SEEDS:-$seeds}; do runs+=("$rival-$seed:$seed"); done
done
if [[ $stages == *" evaluate "* ]]; then
    for run in "${runs[@]}"; do evaluate "${run%:*}" "${run#*:}"; done
fi
if [[ $stages == *" speed "* ]]; then
    effvid bench "${timed[@]}" --threads 1 --rounds "${ROUNDS:-10}" --no-memory --quiet --results "$out/speed.json"
fi
if [[ $stages == *" compare "* ]]; then
    python "$here/compare_students.py" "$out" --name "$name" --split "$split" "${compared[@]}" --speed "$out/speed.json" --results "$results" \
        --picture "${PICTURES:-docs/images}/distillation-$name.png" ${NOTE:+--note "$NOTE"}
fi
