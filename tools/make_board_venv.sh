#!/usr/bin/env bash
# Make .venv-board, a Python 3.6 with the libraries of a board (tests/board/requirements.txt). Called by the Makefile.
#
#   bash tools/make_board_venv.sh [argument of pip install ...]
#
# BOARD_PYTHON names a Python 3.6; without it one is searched on the path, then in pyenv. Exit 5 if none is found.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-board log=.venv-board/install.log

fail() {
  echo "farsearch: $1" >&2
  exit 5
}

# An executable of that name may not start: pyenv puts such a python3.6 on the path.
is_3_6() {
  "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 6))' >/dev/null 2>&1
}

if [ -n "${BOARD_PYTHON:-}" ]; then
  is_3_6 "$BOARD_PYTHON" || fail "BOARD_PYTHON=$BOARD_PYTHON is no working Python 3.6; name another one"
  python=$BOARD_PYTHON
else
  for python in python3.6 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.6.*/bin/python; do
    is_3_6 "$python" && break
    python=
  done
  [ -n "$python" ] || fail "there is no Python 3.6 on the path or in pyenv; install one and add BOARD_PYTHON=<its path>"
fi

echo "farsearch: making $venv with $("$python" --version 2>&1): torch is nearly 1 GB, the whole log is in $log"
# A user's pip settings must not move the install out of the environment.
export PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0 PIP_DISABLE_PIP_VERSION_CHECK=1
"$python" -m venv --clear "$venv" || fail "$python can't make a virtual environment; add BOARD_PYTHON=<another one>"
# pip first: the one shipped with Python 3.6 can't read today's wheels. 21.3.1 is the last for Python 3.6.
for what in "pip==21.3.1" "--requirement=tests/board/requirements.txt"; do
  "$venv/bin/python" -m pip install --progress-bar off "$@" "$what" >>"$log" 2>&1 || {
    grep ERROR "$log" >&2 || true
    fail "pip could not install (see $log); fix the cause and run make again"
  }
done
