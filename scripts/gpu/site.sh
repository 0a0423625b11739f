#!/usr/bin/env bash
# The carried packages in a folder: scripts/gpu/site.sh FOLDER PYTHON (see prepare.sh).
set -euo pipefail
site=$(realpath -m "$1")
cd "$(dirname "$0")/../.."
python=$2
uv=.venv/bin/uv
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

$uv pip install --quiet --target "$site" --python-version "$python" --python-platform x86_64-manylinux_2_35 \
    --no-deps --only-binary :all: --constraint constraints.txt -r scripts/gpu/carried.txt
$uv build --quiet --wheel --out-dir "$made" .
$uv pip install --quiet --target "$site" --python-version "$python" --no-deps "$made"/blendrun-*.whl
cp -r scripts/gpu/stub/. "$site"
# SGLang imports two names for notebooks.
mkdir "$site/IPython"
touch "$site/IPython/__init__.py"
printf 'HTML = str\n\n\ndef display(*_, **__):\n    pass\n' > "$site/IPython/display.py"
cp "$(.venv/bin/python -c 'import importlib.util as find; print(find.find_spec("sgl_kernel").submodule_search_locations[0])')"/scalar_type.py \
    "$site/sgl_kernel/"

# What no engine of a text model loads.
rm -rf "$site"/bin "$site"/sglang/{multimodal_gen,test,kernels/kda_kernels} \
    "$site"/sglang/srt/rust_extensions/_{server,bench,grpc}*
find "$site" -name '*.pyc' -delete
