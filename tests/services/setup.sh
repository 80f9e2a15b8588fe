#!/usr/bin/env bash
# setup.sh [build|test] - what a machine with Rust, a C compiler and a JDK still lacks. Quiet and quick when nothing is.
#   build  what `cargo build` and `make demo` need
#   test   the servers that the tests run and the guests as well (default)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
scope=${1:-test}
target=${CARGO_TARGET_DIR:-$PWD/target}

say() { printf 'setup: %s\n' "$*"; }
lacks() { ! command -v "$1" >/dev/null 2>&1; }

# Which of Debian's packages are missing, by a command or a file that each of them brings.
missing=()
need() { if lacks "$1"; then missing+=("$2"); fi; }
need cmake cmake
need make make
need perl perl
need pkg-config pkg-config
if [ "$scope" = test ]; then
  if lacks java || lacks javac; then missing+=(default-jdk-headless); fi
  need mvn maven
  need node nodejs
  need npm npm
  need openssl openssl
  # Debian starts both as services where it can. The tests run their own, on other ports.
  need redis-server redis-server
  if lacks postgres && ! compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; then missing+=(postgresql); fi
  if lacks pgbouncer && [ ! -x /usr/sbin/pgbouncer ]; then missing+=(pgbouncer); fi
  python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing+=(python3-venv)
fi
if [ "${#missing[@]}" -gt 0 ]; then
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if lacks sudo; then say "install these, then run this again: ${missing[*]}" >&2; exit 1; fi
    as_root=(sudo)
  fi
  if lacks apt-get; then say "install these, then run this again: ${missing[*]}" >&2; exit 1; fi
  say "installing ${missing[*]}"
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update -q &&
         "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; } \
       >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    say "these could not be installed: ${missing[*]}" >&2
    exit 1
  fi
  rm -f "$log"
fi

# Guests are built for it, and rustup does not add it by itself where automatic installs are off.
sysroot=$(rustc --print sysroot)
if [ ! -d "$sysroot/lib/rustlib/wasm32-wasip2" ]; then
  say "adding Rust's target wasm32-wasip2"
  if ! rustup target add wasm32-wasip2; then
    say "the target wasm32-wasip2 is missing, and rustup cannot add it" >&2
    exit 1
  fi
fi
[ "$scope" = test ] || exit 0

# fetch NAME - the jars that tests/services/NAME/pom.xml lists, into services/NAME/libs below the target folder.
fetch() {
  rm -rf "$target/services/$1/libs" && mkdir -p "$target/services/$1/libs"
  mvn -B -q -Dstyle.color=never -f "tests/services/$1/pom.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$target/services/$1/libs"
}

# Servers from Maven: fetched once, and again when their files here change. The stamp comes last.
stamp=$target/services/kafka/pom.sum
sum=$(cksum <tests/services/kafka/pom.xml)
if [ "$(cat "$stamp" 2>/dev/null)" != "$sum" ]; then
  say "fetching the broker that the tests run (44 MB)"
  rm -f "$stamp"
  fetch kafka
  printf '%s\n' "$sum" >"$stamp"
fi
stamp=$target/services/mongo/files.sum
sum=$(cat tests/services/mongo/MongoMain.java tests/services/mongo/pom.xml | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$sum" ]; then
  say "fetching the Mongo server that the tests run (6 MB)"
  rm -f "$stamp"
  fetch mongo
  rm -rf "$target/services/mongo/classes"
  javac -cp "$target/services/mongo/libs/*" -d "$target/services/mongo/classes" tests/services/mongo/MongoMain.java
  printf '%s\n' "$sum" >"$stamp"
fi

tests/guests/build.sh rust python javascript
