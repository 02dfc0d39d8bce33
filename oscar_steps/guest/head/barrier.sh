#!/bin/sh
# The node barrier: OSCAR's installer waits here until the compute nodes are up.
# One line into the FIFO decides: "open", or "shut" and the reason.
fifo=@FIFO@
rm -f "$fifo"
mkfifo -m 600 "$fifo" || { echo "farm barrier: cannot make $fifo"; exit 2; }
trap 'rm -f "$fifo"' EXIT
echo "@WAITING@"
answer=
# Opened to write as well, it has no end: neither a writer that dies without a word nor the moment between two ends it.
exec 3<>"$fifo"
while [ -z "$answer" ]; do
    IFS= read -r answer <&3 || break
done
case $answer in
    open) echo "farm barrier: open"; exit 0 ;;
    shut*) answer=${answer#shut}; printf '%s\n' "@SHUT@${answer# }"; exit 1 ;;
    *) printf '%s\n' "farm barrier: not understood: $answer"; exit 2 ;;
esac
