#!/usr/bin/env bash
# Lays out the files of each image: ci/image-files.sh PROGRAMS TARGET. PROGRAMS is a directory with built programs (target/release); those that
# are there get a directory TARGET/<program> with the program, the libraries that it is linked with, certificates, and its bill of materials.
set -euo pipefail
programs="$(realpath "$1")"
mkdir -p "$2"
target="$(realpath "$2")"
cd "$(dirname "$0")/.."

CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

lay_out() { # package, program
  local root="$target/$2"
  rm -rf "$root"
  mkdir -p "$root"
  install -m 0755 "$programs/$2" "$root/$2"
  # Both forms of a line: "libc.so.6 => /lib/.../libc.so.6 (0x...)" and "/lib64/ld-linux-x86-64.so.2 (0x...)".
  ldd "$programs/$2" | grep -oE '/[^ ]+' | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
  if [ -f "$CERTIFICATES" ]; then
    mkdir -p "$root$(dirname "$CERTIFICATES")"
    cp -L "$CERTIFICATES" "$root$CERTIFICATES"
  fi
  ci/sbom.py "$1" > "$root/sbom.cdx.json"
  echo "$root: $(du -sh "$root" | cut -f1)"
}

count=0
while read -r package program; do
  [ -f "$programs/$program" ] || continue
  lay_out "$package" "$program"
  count=$((count + 1))
done <<END
tandem-operator tandem-operator
tandem-server tandem-runtime
orders orders
tandem-e2e-kubernetes fickle
END
[ "$count" -gt 0 ] || { echo "error: $programs has none of tandem-operator, tandem-runtime and orders" >&2; exit 1; }
