#!/bin/sh
# Known vulnerabilities of the locked packages: audit.sh PIP-AUDIT FILE...   (make audit)
# Strict: pip-audit itself ends well where it could ask about no package at all.
# Exit status 0: none is known; 1: there are some; 20: the database cannot be asked. make shows it as 'Error 1', 'Error 20'.
audit=$1
shift
worst=0
for file; do
    echo "audit: $file"
    said=$("$audit" --strict --require-hashes --disable-pip --progress-spinner off --timeout 30 --requirement "$file" 2>&1)
    status=$?
    if [ "$status" -eq 0 ]; then
        echo "  no vulnerability is known"
    elif printf '%s\n' "$said" | grep -q '^Found [0-9][0-9]* known vulnerabilit'; then
        printf '%s\n' "$said"
        echo "  take newer versions: make lock, then make check test; what cannot be taken is to be named in docs/architecture.md"
        [ "$worst" -eq 20 ] || worst=1
    else
        printf '%s\n' "$said" | tail -n 1
        echo "audit: the database of vulnerabilities (pypi.org) cannot be asked from here, so nothing is known about $file." >&2
        echo "  On a machine with access to it, or with HTTPS_PROXY set, type: make audit" >&2
        worst=20
    fi
done
exit $worst
