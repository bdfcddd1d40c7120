# Sourced by the other scripts, from the project's root: makes or reuses .venv, with what requirements.lock pins.
#
# $PYTHON chooses the interpreter (default: python3). The environment is remade when the interpreter's version,
# requirements.lock or pyproject.toml changes; otherwise it is used as it stands.

PYTHON="${PYTHON:-python3}"

if ! version="$("$PYTHON" -c 'import platform; print(platform.python_implementation(), platform.python_version())')"; then
  echo "error: PYTHON=$PYTHON does not run; name a Python 3.11, 3.12 or 3.13" >&2
  exit 2
fi
if ! "$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
  echo "error: PYTHON=$PYTHON is $version; o1jax needs Python 3.11, 3.12 or 3.13" >&2
  exit 2
fi

# The root is part of the stamp: a virtual environment does not survive being copied or moved.
stamp="$version $PWD $(cat requirements.lock pyproject.toml | "$PYTHON" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"

if [ ! -f .venv/o1jax.stamp ] || [ "$(cat .venv/o1jax.stamp)" != "$stamp" ]; then
  echo "== installing into .venv ($version)"
  rm -rf .venv
  "$PYTHON" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check uv
  .venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock
  # The build backend comes in an environment of its own.
  .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable .
  # Written last: an installation that was cut short leaves no stamp, and is made anew.
  printf '%s\n' "$stamp" > .venv/o1jax.stamp
fi
