#!/usr/bin/env bash
# Installs the pinned tools of `make lint` outside the checkout, once a version, and prints the folders to put on PATH.
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

need cargo "install Rust with rustup (https://rustup.rs)"
need cc "install a C compiler and linker (on Debian: apt-get install gcc libc6-dev)"
install cargo-deny 0.20.2
install mdbook 0.5.4
