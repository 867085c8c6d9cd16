#!/bin/sh
# measure.sh ON [BASE]: measure, judge against the run BASE (a file or an address), tell LAVA of each row.
# For LAVA's test shell and for tuxrun, whose shell is the same. ON is what dmasync bench --on takes.
set -u
on=$1
base=${2-}

word() { # the result in LAVA's words: what could not be judged is neither pass nor fail
    case $1 in
        0) echo pass ;;
        1) echo fail ;;
        4) echo skip ;;
        *) echo unknown ;;
    esac
}

status=0
dmasync bench --on "$on" -o run.json || status=$?
lava-test-case dmasync-bench --result "$(word "$status")"
[ -n "$base" ] && [ -s run.json ] || exit 0

case $base in
    http://* | https://*)
        wget -q -O base.json "$base" || rm -f base.json
        base=base.json
        ;;
esac
status=0
dmasync gate "$base" run.json --lava rows.txt || status=$?
lava-test-case dmasync-gate --result "$(word "$status")"
[ -s rows.txt ] || exit 0
while read -r name result value unit; do
    lava-test-case "$name" --result "$result" ${value:+--measurement "$value" --units "$unit"} </dev/null
done <rows.txt
