#!/usr/bin/env bash
# Trains and measures every arm of the vocabulary study. Stopped at any time, the same command goes on.
#
#   experiments/vocabulary/run.sh FOLDER [TEXTS] [SET ...]
#
# FOLDER receives the studies. TEXTS is a folder with pepys.jsonl.gz, soseki.jsonl.gz and
# esperanto.jsonl.gz; without it (or with -), kjv and stdlib alone are read. SETs are headline,
# one-pass, small, bits, unigram, total and temperature (one temperature for each arm of headline
# and bits, measured again); without any, all of them in this order.
# JOBS arms are trained side by side (default 2); CORPORA="kjv soseki" takes some of the corpora.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:?usage: run.sh FOLDER [TEXTS] [SET ...]}
texts=${2:--}
shift $(($# < 2 ? $# : 2))
sets=("$@")
[ ${#sets[@]} -gt 0 ] || sets=(headline one-pass small bits unigram total temperature)
embedded="kjv stdlib"
[ "$texts" = - ] && corpora=$embedded || corpora="$embedded soseki esperanto pepys"
corpora=${CORPORA:-$corpora}
python=${PYTHON:-python}
jobs=${JOBS:-2}

study() { # CORPUS SET FILE [OVERRIDE ...]
    local corpus=$1 set=$2 file=$3 source=("base.corpus.name=$1")
    shift 3
    case $corpus in
    kjv) ;;
    stdlib) # its documents are long: more text, and more of it for the test, for as much training
        source+=(base.corpus.sample_bytes=1_400_000 base.corpus.validation_fraction=0.2
            base.corpus.test_fraction=0.45) ;;
    *) source=(base.corpus.name=files "base.corpus.paths=[$texts/$corpus.jsonl.gz]") ;;
    esac
    # Japanese is written without spaces, so that it has no words to be measured
    [ "$corpus" != soseki ] || set -- "base.evaluation.events=[token, byte]" "$@"
    echo "== $(date +%H:%M) $corpus $set"
    "$python" -m calibtrain ablate "$file" "${source[@]}" "$@" --run "$folder/$corpus-$set" \
        --jobs "$jobs" --progress plain || echo "== some arms of $corpus $set failed" >&2
}

for set in "${sets[@]}"; do
    for corpus in $corpora; do
        case $set-$corpus in
        unigram-soseki) ;; # its characters alone are more than 2,048
        unigram-esperanto | unigram-pepys | total-esperanto | total-pepys) ;; # some corpora are enough
        temperature-*)
            echo "== $(date +%H:%M) $corpus $set"
            "$python" "$here/with_temperature.py" --jobs "$jobs" \
                "$folder/$corpus-headline" "$folder/$corpus-bits-"*
            ;;
        bits-*)
            for file in $("$python" "$here/match.py" "$folder" "$corpus"); do
                study "$corpus" "$(basename "$file" .yaml)" "$file"
            done
            ;;
        *) study "$corpus" "$set" "$here/study-$set.yaml" ;;
        esac
    done
done
