#!/usr/bin/env bash
# Lints, type-checks and tests. Arguments go to pytest: `bash scripts/test.sh -m slow`, `bash scripts/test.sh tests/rl`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/env.sh

echo "== ruff"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
echo "== mypy"
.venv/bin/mypy
echo "== pytest"
# A worker a core; a file stays with one worker, for what its tests share.
exec .venv/bin/python -m pytest -n auto --dist loadfile "$@"
