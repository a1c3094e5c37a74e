#!/usr/bin/env bash
# kill.sh N [STAGE...]: kills the stages of the smoke pipeline at N of their crash points, drawn by $SEED
# (0), or at each one once if there are fewer; runs the same command again; and compares with an undisturbed
# run. Prints a line per case that fails and
# "CHECK kill runs=N equal=N lost=0 silent=0 ..."; exits with 3 if one fails.
# $BIN is a folder of programs to use instead of building them.
exec "$(dirname "$0")/faults.sh" "${1:?kill.sh N [STAGE...]}" kill "${@:2}"
