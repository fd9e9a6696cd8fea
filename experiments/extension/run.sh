#!/usr/bin/env bash
# "Longer context for a trained model" of docs/experiments.md, or its next piece: builds the program, the model and the
# corpus where they are missing, makes the runs that are left, at most 25 minutes of them, and says where the plan stands. Call it again
# until all are made.
#   experiments/extension/run.sh [--minutes 25] [--only 'dense-*'] [--list] …      (run.py --help)
# Without a network it takes the model from .corpus/smollm2/pieces (weights.py split) and the text from .corpus/long-texts.tar.xz.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
here=experiments/extension model=.corpus/smollm2 text=.corpus/long-texts tokens=.corpus/long-texts.tokens
if [[ " $* " != *" --list "* && " $* " != *" --help "* ]]; then
  if [[ " $* " != *" --program "* && ! -x build/release/bin/lighthouse ]]; then
    scripts/setup.sh
    make --no-print-directory build/release/build.ninja
    cmake --build build/release --target lighthouse_cli
  fi
  if [ ! -e "$model/model" ]; then
    if [ -e "$model/pieces" ]; then
      "$python" $here/weights.py join "$model/pieces" "$model/downloads"
    else
      "$python" $here/weights.py fetch "$model/downloads"
    fi
    "$python" $here/weights.py build "$model/downloads" "$model/model"
  fi
  if [ ! -e "$text/train" ]; then
    if [ -e "$text.tar.xz" ]; then
      "$python" experiments/two_stage/corpus.py unpack "$text.tar.xz" "$text"
    else
      "$python" experiments/two_stage/corpus.py build "$text" --package long-texts
    fi
  fi
  for part in heldout train; do
    for kind in code prose; do
      if [ -e "$tokens/$part-$kind" ]; then continue; fi
      PYTHONPATH=python "$python" -m lighthouse_prepare "$text/$part/$kind" --tokenizer "$model/model" --validation 0 \
        --text-endings .rst .cpp .h .td .py --end-of-text '<|endoftext|>' --seq-lens 65536 --output "$tokens/$part-$kind"
    done
  done
fi
exec "$python" $here/run.py "$@"
