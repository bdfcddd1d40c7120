#!/usr/bin/env bash
# The main job from a fresh clone: cold start, then RL, then the table and the curves. Arguments are overrides,
# such as `--rl.steps 50` or `--resume`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/env.sh

exec .venv/bin/o1jax train experiments/quickstart.py "$@"
