#!/usr/bin/env bash
# Every head on every base model of the losses' study, before and after narrow tuning; two vocabularies,
# three seeds. Results: runs/temperature-heads/*.json
#   calibtrain ablate experiments/losses-kjv/study.yaml --run runs/losses-kjv      # the base models
#   bash experiments/temperature-heads/run.sh
set -euo pipefail
out=runs/temperature-heads
mkdir -p "$out"
python experiments/temperature-heads/narrow.py runs/narrow.jsonl
for vocab in 512 4096; do
    for seed in 0 1 2; do
        base="runs/losses-kjv/vocab_size=$vocab,loss=cross_entropy,seed=$seed"
        tuned="$out/narrow-$vocab-$seed"
        calibtrain finetune experiments/temperature-heads/narrow.yaml "finetune.run=$base" \
            "seed=$seed" --run "$tuned" --progress plain
        for run in "$base" "$tuned"; do
            name=$([ "$run" = "$base" ] && echo base || echo narrow)
            calibtrain temperature compare "$run" --corpus kjv --corpus pydoc --bytes 60000 \
                --steps 200 --json > "$out/$name-$vocab-$seed.json"
        done
    done
done
