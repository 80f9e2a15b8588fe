#!/bin/sh
# Builds the plugins and the guests of the tests: tests/guests/build.sh [plugins] [rust] [python] [javascript], the last three
# without arguments. `rust` holds the plugins.
# Every component ends up in target/guests, every tool in target/tools; nothing is installed anywhere else.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
guests=$root/tests/guests
out=$root/target/guests
tools=$root/target/tools
componentize_py=0.25.1
componentize_js=0.23.0

fail() {
    echo "error: $1" >&2
    echo >&2
    echo "hint: $2" >&2
    exit 1
}

# A file's name stands for all of its inputs and the version of its tool; up to date means that the same were seen last time.
stamp() {
    printf '%s\n' "$1"
    shift
    cat "$@" | cksum
}

fresh() {
    [ -f "$out/$1" ] && [ -f "$out/.$1.stamp" ] && [ "$(cat "$out/.$1.stamp")" = "$2" ]
}

# Only a whole component may carry its name: a build that was stopped half-way is not fresh.
finish() {
    mv "$out/$1.part" "$out/$1"
    printf '%s\n' "$2" >"$out/.$1.stamp"
}

# Builds crates, each written crate or crate:component.
crates() {
    command -v cargo >/dev/null || fail "\`cargo\` is not on the PATH" "install Rust with rustup"
    packages=
    for name; do packages="$packages -p ${name%:*}"; done
    # target/wasm and not the host's folder: the two never wait for each other's lock, and neither throws away what the other built.
    # shellcheck disable=SC2086 # The packages are words.
    (cd "$root" && cargo build --locked --quiet --profile plugin --target wasm32-wasip2 --target-dir "$root/target/wasm" $packages) ||
        fail "the Rust guests do not build" "if it says \`can't find crate for std\`: rustup target add wasm32-wasip2"
    for name; do
        built=$root/target/wasm/wasm32-wasip2/plugin/$(printf %s "${name%:*}" | tr - _).wasm
        name=${name#*:}
        # A file that did not change keeps its time, so that nothing is compiled anew because of it.
        cmp -s "$built" "$out/$name.wasm" || { cp "$built" "$out/$name.wasm.part" && mv "$out/$name.wasm.part" "$out/$name.wasm"; }
    done
}

plugins() {
    crates search csv-sink:csv
}

rust() {
    crates search csv-sink:csv dialler faulty-collector faulty-sink future-collector lookups model-sink prowler random-trap-sink \
        stamp stranger
}

# Builds a module of tests/guests/python: module, component, world.
python_guest() {
    stamp=$(stamp "componentize-py $componentize_py" "$guests/build.sh" "$guests/python/$1.py" "$root"/wit/*.wit)
    fresh "$2.wasm" "$stamp" && return
    command -v python3 >/dev/null || fail "\`python3\` is not on the PATH" "install it (Debian: python3 and python3-venv)"
    venv=$tools/componentize-py-$componentize_py
    if [ ! -x "$venv/bin/componentize-py" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv" || fail "\`python3 -m venv\` failed" "install the venv module (Debian: python3-venv)"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "componentize-py==$componentize_py" ||
            fail "componentize-py $componentize_py cannot be installed" "see whether pip reaches its package index"
    fi
    # A copy, because the tool leaves its __pycache__ beside the source.
    mkdir -p "$venv/source"
    cp "$guests/python/$1.py" "$venv/source/$1.py"
    (cd "$venv/source" && "$venv/bin/componentize-py" --quiet -d "$root/wit" -w "$3" \
        componentize "$1" -o "$out/$2.wasm.part")
    finish "$2.wasm" "$stamp"
}

python() {
    python_guest app python-collector collector-plugin
    python_guest sink python-sink sink-plugin
}

javascript() {
    stamp=$(stamp "componentize-js $componentize_js" "$guests/build.sh" "$guests"/javascript/* "$root"/wit/*.wit)
    fresh javascript-collector.wasm "$stamp" && return
    command -v node >/dev/null || fail "\`node\` is not on the PATH" "install Node.js 20 or newer (Debian: nodejs and npm)"
    command -v npm >/dev/null || fail "\`npm\` is not on the PATH" "install it (Debian: npm)"
    folder=$tools/componentize-js-$componentize_js
    if [ ! -f "$folder/installed" ]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        echo '{"private":true,"type":"module"}' >"$folder/package.json"
        (cd "$folder" && npm install --silent --no-fund --no-audit --no-save --no-package-lock \
            "@bytecodealliance/componentize-js@$componentize_js") ||
            fail "componentize-js $componentize_js cannot be installed" "see whether npm reaches its registry"
        : >"$folder/installed"
    fi
    cp "$guests/javascript/build.mjs" "$folder/build.mjs"
    node "$folder/build.mjs" "$guests/javascript/collector.js" "$root/wit" collector-plugin \
        "$out/javascript-collector.wasm.part"
    finish javascript-collector.wasm "$stamp"
}

mkdir -p "$out" "$tools"
[ $# -gt 0 ] || set -- rust python javascript
for language; do
    case $language in
    plugins | rust | python | javascript) "$language" ;;
    *) fail "\`$language\` is no language of the guests" "write plugins, rust, python or javascript, or nothing for all" ;;
    esac
done
