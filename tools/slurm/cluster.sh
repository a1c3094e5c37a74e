#!/usr/bin/env bash
# cluster.sh up DIR [NODES] | cluster.sh down DIR: a temporary Slurm on this machine. Its nodes are on
# loopback, with two cores each: no systemd, no control groups, no accounting. All files are in DIR;
# after `. DIR/env.sh`, srun and sbatch use it.
#
# Its nodes share one /dev/shm: several ranks of OpenMPI on each of them need OMPI_MCA_btl=tcp,self.
#
# Needs root and, on Debian:
#   apt-get install -y --no-install-recommends slurm-wlm slurm-wlm-basic-plugins munge
set -euo pipefail
usage() { echo "cluster.sh up DIR [NODES] | cluster.sh down DIR" >&2; exit 2; }
[ $# -ge 2 ] || usage

down() {
  # Jobs would continue without their daemons.
  if [ -e "$1/env.sh" ] && . "$1/env.sh" && scancel -u "$(id -un)" 2>/dev/null; then
    for _ in $(seq 1 60); do
      [ -n "$(squeue -h -t running,completing 2>/dev/null)" ] || break
      sleep 0.5
    done
  fi
  # Only the processes that `up` started, by pid.
  for file in "$1"/slurmd-*.pid "$1"/slurmctld.pid "$1"/munge/pid; do
    [ -s "$file" ] && kill "$(cat "$file")" 2>/dev/null || true
  done
}

up() {
  dir=$1 nodes=$2 port=${SLURM_PORT:-16817}
  for program in munged slurmctld slurmd; do
    command -v "$program" >/dev/null || {
      echo "$program is not installed; on Debian: apt-get install -y --no-install-recommends" \
        "slurm-wlm slurm-wlm-basic-plugins munge" >&2
      exit 1
    }
  done
  # A folder with files in it is not ours to fill.
  mkdir -p "$dir" && rmdir "$dir" || exit 73
  mkdir -p "$dir"/{munge,state,spool,log}
  chmod 755 "$dir"
  chmod 700 "$dir/munge"
  dir=$(cd "$dir" && pwd)
  head -c 128 /dev/urandom >"$dir/munge/key"
  chmod 400 "$dir/munge/key"
  # cred_expire: otherwise a requeue waits two minutes. TmpFS: otherwise the nodes share one folder.
  cat >"$dir/slurm.conf" <<CONF
ClusterName=s4l
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$(id -un)
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/sock,cred_expire=5
CommunicationParameters=NoInAddrAny
MpiDefault=none
TmpFS=$dir/tmp/%n
ProctrackType=proctrack/pgid
TaskPlugin=task/none
TaskProlog=$dir/prolog.sh
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobcomp.txt
MailProg=/bin/true
JobRequeue=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
MinJobAge=3600
MessageTimeout=10
SlurmdTimeout=60
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
NodeName=DEFAULT CPUs=2 CoresPerSocket=2 RealMemory=4000 State=UNKNOWN
CONF
  for nth in $(seq 1 "$nodes"); do
    echo "NodeName=n$nth NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 10 + nth))" >>"$dir/slurm.conf"
    mkdir -p "$dir/spool/n$nth" "$dir/tmp/n$nth"
  done
  cat >>"$dir/slurm.conf" <<CONF
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP OverSubscribe=NO PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=60 State=UP OverSubscribe=NO PriorityTier=10
CONF
  echo "CgroupAutomount=no" >"$dir/cgroup.conf"
  printf 'export SLURM_CONF=%q\n' "$dir/slurm.conf" >"$dir/env.sh"
  # Workflow programs remove SLURM_* from the environment, and there is no /etc/slurm here.
  printf '#!/bin/sh\necho export SLURM_CONF=%s\n' "$dir/slurm.conf" >"$dir/prolog.sh"
  chmod +x "$dir/prolog.sh"
  . "$dir/env.sh"
  munged --key-file="$dir/munge/key" --socket="$dir/munge/sock" --pid-file="$dir/munge/pid" \
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" --force 2>"$dir/log/munged.err"
  slurmctld -c
  for nth in $(seq 1 "$nodes"); do slurmd -N "n$nth"; done
  for _ in $(seq 1 150); do
    [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)" = "$nodes" ] && return
    sleep 0.2
  done
  echo "Slurm did not come up:" >&2
  tail -n 20 "$dir"/log/*.log >&2
  down "$dir"
  exit 1
}

case $1 in
up) up "$2" "${3:-2}" ;;
down) down "$2" ;;
*) usage ;;
esac
