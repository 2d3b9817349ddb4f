#!/usr/bin/env bash
# Build the wheel and run Python with the given arguments (-m pytest ...) where farsearch is that wheel.
# Its environment uses the dependencies of .venv, but not its editable farsearch, and the tests run in a copy of the
# repository without the package, so that only the wheel can be imported.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

echo "farsearch: building the wheel"
PIP_CONSTRAINT=constraints.txt .venv/bin/python -m build --outdir "$scratch/dist" >"$scratch/build.log" 2>&1 || {
  cat "$scratch/build.log"
  exit 1
}

.venv/bin/python -m venv --without-pip "$scratch/venv"
.venv/bin/python -m pip --python "$scratch/venv/bin/python" install --quiet --no-index --no-deps "$scratch"/dist/*.whl
site='import sysconfig; print(sysconfig.get_path("purelib"))'
# A plain path, so that its .pth files, including the editable install's, are not read.
.venv/bin/python -c "$site" >"$("$scratch/venv/bin/python" -c "$site")/dependencies.pth"

mkdir "$scratch/tree"
cp -r .github tests benchmarks examples search_spaces docs tools Makefile pyproject.toml constraints.txt README.md CONTRIBUTING.md CHANGELOG.md CITATION.cff mkdocs.yml "$scratch/tree"
cd "$scratch/tree"
"$scratch/venv/bin/python" -c '
import sys, farsearch
assert farsearch.__file__.startswith(sys.prefix), farsearch.__file__
print("farsearch: testing", farsearch.__file__)'
"$scratch/venv/bin/python" "$@"
