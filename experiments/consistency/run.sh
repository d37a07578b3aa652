#!/usr/bin/env bash
# Questions, then each base run tuned on right answers and after that on preferences: three seeds.
#   experiments/vocabulary/run.sh runs/vocabulary - headline           # the base runs
#   bash experiments/consistency/run.sh runs/vocabulary/kjv-headline runs/consistency
set -euo pipefail
study=$1 out=$2
here=experiments/consistency
python $here/questions.py "$study/tokenizer=byte,seed=0" "$out"
for seed in 0 1 2; do
    base="$study/tokenizer=byte,seed=$seed"
    for kind in sft dpo; do
        calibtrain finetune $here/$kind.yaml "finetune.run=$base" "finetune.paths=[$out/$(
            [ $kind = sft ] && echo answers || echo pairs
        ).jsonl]" "seed=$seed" --run "$out/$kind-$seed" --progress plain
        base="$out/$kind-$seed"
    done
done
