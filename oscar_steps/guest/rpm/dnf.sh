#!/bin/sh
# dnf of the host, whose last line says what went wrong. Usage: dnf.sh HOME WORD...
# HOME holds rpm's macros: where its database is.
set -eu
HOME=$1; shift
export HOME
said=$HOME/said
if dnf --config "$HOME/dnf.conf" "$@" > "$said" 2>&1; then
    cat "$said"
    exit 0
fi
cat "$said"
# It says over several lines what went wrong, and names a package with a bad signature before that.
why=$({
    grep -e '^Package .* is not signed$' -e '^Public key for .* is not installed' "$said" || :
    sed -n '/^Error: /,$p' "$said"
} | sed 's/^Error: //' | tr -s ' \n' '  ' | cut -c 1-600)
echo "Error: $why"
exit 1
