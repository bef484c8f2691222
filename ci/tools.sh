#!/usr/bin/env bash
# Installs pinned tools outside the checkout, once a version, and prints the folders to put on PATH: those of
# `make lint`, or with the argument `instructions` those of `make instructions`.
set -euo pipefail

TOOLS="${TANDEM_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/tandem/tools}"

need() {
  command -v "$1" >/dev/null 2>&1 || { echo "error: $1 is missing: $2" >&2; exit 1; }
}

install() { # crate version
  local root="$TOOLS/$1-$2"
  if [ ! -x "$root/bin/$1" ]; then
    echo "installing $1 $2 into $root (a few minutes, once)" >&2
    cargo install "$1" --version "$2" --locked --quiet --root "$root" >&2
  fi
  printf '%s:' "$root/bin"
}

# The version that Cargo.lock has: the runner understands only benches that were built with its own version.
locked() { # crate
  grep -A1 "^name = \"$1\"\$" "$(dirname "$0")/../Cargo.lock" | sed -n 's/^version = "\(.*\)"$/\1/p'
}

need cargo "install Rust with rustup (https://rustup.rs)"
need cc "install a C compiler and linker (on Debian: apt-get install gcc libc6-dev)"
case "${1:-lint}" in
  lint)
    install cargo-deny 0.20.2
    install mdbook 0.5.4
    ;;
  instructions)
    need valgrind "instructions are counted by it (on Debian: apt-get install valgrind)"
    install gungraun-runner "$(locked gungraun)"
    ;;
  *)
    echo "error: unknown tools $1: lint or instructions" >&2
    exit 1
    ;;
esac
