#!/bin/sh
# Hands one job to the scheduler and prints the job's id: submit.sh RULE CORES GPUS MEMORY_MB MINUTES JOB_SCRIPT
set -eu
rule=$1 cores=$2 gpus=$3 memory=$4 minutes=$5 script=$6

# PBS Pro:      exec qsub -V -N "$rule" -l "select=1:ncpus=$cores:ngpus=$gpus:mem=${memory}mb" -l "walltime=0:$minutes:0" "$script"
# LSF:          bsub -J "$rule" -n "$cores" -gpu "num=$gpus" -M "${memory}MB" -W "$minutes" <"$script" | grep -o '[0-9]*' | head -n 1; exit
# Grid Engine:  exec qsub -terse -V -cwd -N "$rule" -pe smp "$cores" -l "gpu=$gpus,h_rt=0:$minutes:0" "$script"

# Without a scheduler: a process group of its own on this machine, ended at its time limit.
mkdir -p .snakemake/cluster-generic
folder=$(mktemp -d ".snakemake/cluster-generic/$rule.XXXXXX")
# shellcheck disable=SC2016  # the inner shell expands them
setsid sh -c '
    echo $$ >"$1/group"
    timeout --foreground "$2m" sh "$3" >"$1/log" 2>&1
    echo $? >"$1/status.new"
    mv "$1/status.new" "$1/status"
' sh "$folder" "$minutes" "$script" </dev/null >/dev/null 2>&1 &
until [ -s "$folder/group" ]; do sleep 0.1; done
echo "$folder"
