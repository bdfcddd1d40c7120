#!/usr/bin/env bash
# Lints, type-checks and tests: the core suite, or with --all as first argument every test but those marked slow and
# parity. Further arguments go to pytest: `bash scripts/test.sh tests/rl`, `bash scripts/test.sh -m slow`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/env.sh

select=(-m "not full and not slow and not parity and not bitwise")
if [[ "${1:-}" == --all ]]; then
  select=()
  shift
fi

echo "== ruff"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
echo "== mypy"
.venv/bin/mypy
echo "== pytest"
# A worker a core; a file stays with one worker, for what its tests share.
exec .venv/bin/python -m pytest -n auto --dist loadfile "${select[@]}" "$@"
