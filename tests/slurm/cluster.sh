#!/usr/bin/env bash
# A real one-node SLURM cluster on this machine, for the tests: partition `gpu` with one `gpu` (a placeholder device file,
# no accelerator is needed) and partition `urgent`, whose jobs preempt those of `gpu`.
#
#   apt-get install slurm-wlm slurmdbd mariadb-server munge                 once, as root
#   cluster.sh start FOLDER [--no-accounting]                               as root; until sinfo shows the node idle
#   cluster.sh stop FOLDER                                                  as root; ends what `start` began, nothing else
#
# Everything stands in FOLDER: configuration, state, logs, a database and a munge of its own. Outside it there is only
# the link /etc/slurm/slurm.conf, because the SLURM executor drops the variable SLURM_CONF from its jobs. A machine that
# has a slurm.conf already is left alone: it belongs to a real cluster.
set -euo pipefail

usage() {
    echo "usage: cluster.sh start FOLDER [--no-accounting] | stop FOLDER" >&2
    exit 2
}

(($# >= 2)) || usage
action=$1 folder=$(realpath -m "$2") accounting=1
[[ ${3:-} != --no-accounting ]] || accounting=
link=/etc/slurm/slurm.conf
host=$(hostname -s)
PATH=$PATH:/usr/sbin:/sbin
daemons=(slurmd slurmctld slurmdbd mariadbd munged)
export SLURM_CONF=$folder/slurm.conf

((EUID == 0)) || { echo "cluster.sh: only root can start slurmd; try sudo" >&2; exit 1; }

wait_for() { # what, command…
    local what=$1
    shift
    for _ in $(seq 120); do
        timeout 10 "$@" >/dev/null 2>&1 && return
        sleep 0.25
    done
    echo "cluster.sh: $what did not come up in 30 s; its log is in $folder/log" >&2
    tail -n 20 "$folder"/log/* >&2
    return 1
}

running() { # a daemon of this cluster
    local pid
    pid=$(cat "$folder/$1.pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null
}

stop() {
    local daemon
    if running slurmctld; then
        timeout 10 scancel --full --signal=KILL --state=RUNNING 2>/dev/null || true
        timeout 10 scancel --state=PENDING 2>/dev/null || true
        for _ in $(seq 40); do
            [[ -z $(timeout 10 squeue --noheader 2>/dev/null) ]] && break
            sleep 0.25
        done
    fi
    for daemon in "${daemons[@]}"; do
        running "$daemon" || continue
        kill "$(cat "$folder/$daemon.pid")"
        for _ in $(seq 40); do
            running "$daemon" || break
            sleep 0.25
        done
        if running "$daemon"; then kill -KILL "$(cat "$folder/$daemon.pid")"; fi
        rm -f "$folder/$daemon.pid"
    done
    if [[ $(readlink "$link") == "$folder/slurm.conf" ]]; then rm "$link"; fi
}

configure() {
    local memory accounts # RealMemory is at least 64 GB: what retries ask for must not be refused where none of it is used.
    memory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
    accounts="AccountingStorageType=accounting_storage/none"
    if [[ -n $accounting ]]; then
        accounts="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=16819
AccountingStoragePass=$folder/munge/socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment"
    fi
    cat >"$folder/slurm.conf" <<CONF
ClusterName=batchscope
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
StateSaveLocation=$folder/slurmctld
SlurmdSpoolDir=$folder/slurmd
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
$accounts
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=30
KillWait=10
MpiDefault=none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$((memory > 65536 ? memory : 65536)) Gres=gpu:1 State=UNKNOWN
PartitionName=gpu Nodes=$host Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=10 State=UP
PartitionName=urgent Nodes=$host MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF State=UP
CONF
    # From 24.05 on slurmd wants cgroups unless it is told that there are none.
    [[ $(slurmd -V) < "slurm-wlm 24.05" ]] || echo "CgroupPlugin=disabled" >"$folder/cgroup.conf"
    echo "NodeName=$host Name=gpu Count=1 File=/dev/null" >"$folder/gres.conf"
    cat >"$folder/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
DbdHost=localhost
DbdPort=16819
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
LogFile=$folder/log/slurmdbd
PidFile=$folder/slurmdbd.pid
CONF
    chmod 600 "$folder/slurmdbd.conf"
}

start_munge() {
    local munge=$folder/munge
    mkdir -p "$munge"
    dd if=/dev/urandom of="$munge/key" bs=1024 count=1 status=none
    chmod 400 "$munge/key"
    chown -R munge: "$munge"
    # Started as root it would distrust a folder that is not root's; as itself it trusts its own.
    su -s /bin/sh munge -c "exec /usr/sbin/munged --force --socket=$munge/socket --key-file=$munge/key \
        --pid-file=$munge/pid --seed-file=$munge/seed --log-file=$munge/log"
    wait_for munge munge --socket="$munge/socket" --no-input
    cp "$munge/pid" "$folder/munged.pid"
}

start_database() {
    local data=$folder/mysql
    mkdir -p "$data"
    chown mysql: "$data"
    mariadb-install-db --no-defaults --user=mysql --datadir="$data" --auth-root-authentication-method=socket \
        --skip-test-db >"$folder/log/mariadb-install" 2>&1
    setsid mariadbd --no-defaults --user=mysql --datadir="$data" --socket="$data/socket" --pid-file="$data/pid" \
        --skip-networking --skip-log-bin --innodb-buffer-pool-size=64M >"$folder/log/mariadbd" 2>&1 </dev/null &
    wait_for mariadbd mariadb --no-defaults --socket="$data/socket" --execute='create database slurm_acct_db'
    cp "$data/pid" "$folder/mariadbd.pid"
    MYSQL_UNIX_PORT=$data/socket slurmdbd
    wait_for slurmdbd sacctmgr --noheader show cluster
    # The controller would register itself, but says so only in its log; who asks for accounts asks sooner.
    sacctmgr --immediate add cluster batchscope >/dev/null
    sacctmgr --immediate add account study >/dev/null
    sacctmgr --immediate add user "${SUDO_USER:-root}" account=study >/dev/null
}

start() {
    if [[ -e $link || -L $link ]]; then
        echo "cluster.sh: $link exists; this machine belongs to a cluster already, or another one is up" >&2
        exit 3
    fi
    mkdir -p "$folder"/{slurmctld,slurmd,log} /etc/slurm
    chmod 755 "$folder"
    trap 'stop' EXIT # until all is up
    configure
    ln -s "$folder/slurm.conf" "$link"
    start_munge
    if [[ -n $accounting ]]; then start_database; fi
    slurmctld
    wait_for slurmctld scontrol ping
    slurmd
    wait_for slurmd sh -c "sinfo --noheader --format=%t | grep -qE 'idle|mix|alloc'"
    trap - EXIT
}

case $action in
start) start ;;
stop) stop ;;
*) usage ;;
esac
