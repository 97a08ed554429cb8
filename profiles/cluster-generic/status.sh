#!/bin/sh
# Prints what became of a job, `running`, `success` or `failed`: status.sh ID
set -eu

# PBS Pro:      qstat -xf "$1" and its lines job_state and Exit_status
# LSF:          bjobs -noheader -o stat "$1" says PEND, RUN, DONE or EXIT
# Grid Engine:  qstat -j "$1" while the job is known, then exit_status of qacct -j "$1"

if [ -e "$1/status" ]; then
    [ "$(cat "$1/status")" = 0 ] && echo success || echo failed
elif kill -s 0 -- "-$(cat "$1/group")" 2>/dev/null; then
    echo running
elif [ -e "$1/status" ]; then
    # It ended between the two questions.
    exec sh "$0" "$1"
else
    echo failed
fi
