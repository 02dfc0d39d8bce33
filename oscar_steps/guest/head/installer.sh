#!/bin/sh
trap : TERM
echo $$ > @FARM@/installer.session
@COMMAND@
status=$?
n=0
while [ $n -lt 50 ] && pgrep -s $$ -x tee >/dev/null; do n=$((n + 1)); sleep 0.1; done
printf '\n@END_MARK@ %s\n' "$status"
