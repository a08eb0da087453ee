#!/bin/sh
# supervisor.sh: one detached run of one command, spooled to disk, followed from any offset.
#
# Why a shell script: it must run in any workspace, and all that a workspace surely has is a POSIX
# shell (dash, busybox, bash) and the usual tools. Why detached: requests, exec channels and all
# processes of rdev may die at any moment; the run, its output and the word on how it ended live here.
#
#   supervisor.sh start  RUNS ID JOB_BYTES STDIN_BYTES MIN_FREE_KB BUDGET_KB   job, then stdin, on stdin
#   supervisor.sh follow RUNS ID merged|stdout|stderr OFFSET
#   supervisor.sh send   RUNS ID OFFSET BYTES more|last                        data on stdin
#   supervisor.sh kill   RUNS ID graceful|shutdown|force REASON INTERRUPT_FIRST(0|1)
#   supervisor.sh status RUNS ID
#   supervisor.sh refuse RUNS ID
#   supervisor.sh gc     RUNS - OLDER_THAN_S
#
# Answers are one line on stdout. `start` goes on with the raw output after its line; `follow` is raw
# output only, and both say the final status on stderr. Exit codes: 0 answered, 64 called wrongly,
# 65 no such offset, 66 no such run, 75 superseded by another follower.
#
# RUNS/ID/ is one run (the names are a contract between versions of this script):
#   owner    pid, start time and boot id of the supervisor; the mkdir of ID/ is the claim
#   go       created exactly once: `launch` by the supervisor, or first by whoever forbids the launch
#            (`refused`: a tombstone; `killed`: see why). This is what makes a tombstone safe against
#            a supervisor that was stopped between its claim and its launch.
#   why      the reason of the first kill
#   reaper   pid, start time and boot id of the latest process that carries a kill out
#   cmd      pid and start time of the command
#   out err  the spools; the supervisor holds them open as descriptors 8 and 9, so that anybody can
#            read their sizes from /proc/PID/fdinfo without starting a process
#   private.N  what the command reads by name and nobody else shall, until the run has ended
#   in.N     input that begins at byte N; in.last holds the offset where input ends
#   exit     the exit record, one line, moved here whole; exit.new keeps its disk space reserved
#   follow.* token of the latest follower of a spool
#   log      what the tools of the supervisor had to say
#
# What starting costs is mostly fork and exec (about 1 ms each), so the path from `start` to the launch
# uses builtins wherever it can: numbers come from /proc by `read`, exclusive files from `set -C`. And
# what `read` costs is one system call a byte, so it gets short files.

set -u
umask 077
LC_ALL=C
export LC_ALL
unset CDPATH
newline='
'
ifs=" 	$newline"
IFS=$ifs

script=$0
boot= # see sign
empty_sha=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
# Seconds a follower rests between looks: short at first, because most commands answer at once, then
# a tenth, so that an idle follower costs ten `sleep`s a second and a line is seen within 0.2 s.
eager='0.004 0.001 0.001 0.002 0.002 0.002 0.004 0.004 0.008 0.015 0.03 0.06'
busy='0.002 0.01 0.03 0.06'
idle=0.1

# --- small things --------------------------------------------------------------------------------

# clock: centiseconds since boot, in $clock. Never jumps, unlike the time of day.
clock() {
  read -r clock _ </proc/uptime
  clock=${clock%.*}${clock#*.}
}

# seconds MS: as sleep wants them, in $seconds.
seconds() {
  seconds_ms=$(($1 % 1000 + 1000))
  seconds=$(($1 / 1000)).${seconds_ms#1}
}

# nap MS
nap() {
  seconds "$1"
  "$sleep" "$seconds"
}

# process PID: its state letter and start time, in $proc_state and $proc_start.
process() {
  proc_line=
  # A process may have a newline in its name, hence the loop; what we want follows the last `) `.
  {
    while read -r proc_part; do
      proc_line="$proc_line $proc_part"
    done <"/proc/$1/stat"
  } 2>/dev/null
  case $proc_line in *') '*) ;; *) return 1 ;; esac
  # shellcheck disable=SC2086 # splitting is the point
  set -- ${proc_line##*') '}
  proc_state=$1
  proc_start=${20}
}

# living PID START: that very process runs. A zombie does not: PID 1 of a workspace may never reap.
living() {
  process "$1" && [ "$proc_start" = "$2" ] || return 1
  case $proc_state in Z | X) return 1 ;; esac
}

# locate TOOL: its path, in $found; the bare name when PATH has none.
locate() {
  IFS=:
  for found in $PATH; do
    found=$found/$1
    if [ -x "$found" ]; then
      IFS=$ifs
      return 0
    fi
  done
  IFS=$ifs found=$1
}

# first_line FILE: in $line; empty when there is none (yet).
first_line() {
  line=
  [ ! -e "$1" ] || { read -r line <"$1"; } 2>/dev/null
  return 0
}

# sign FILE: who we are, into FILE.
sign() {
  read -r self _ </proc/self/stat
  process "$self"
  [ -n "$boot" ] || read -r boot </proc/sys/kernel/random/boot_id
  { printf '%s %s %s\n' "$self" "$proc_start" "$boot" >"$1"; } 2>/dev/null
}

# signed FILE: who signed it lives; its pid in $signer.
signed() {
  signer= signer_start= signer_boot=
  [ ! -e "$1" ] || { read -r signer signer_start signer_boot <"$1"; } 2>/dev/null
  [ -n "$signer_boot" ] || return 1
  [ -n "$boot" ] || read -r boot </proc/sys/kernel/random/boot_id
  [ "$boot" = "$signer_boot" ] && living "$signer" "$signer_start"
}

# owned: the supervisor of $dir lives; its pid in $owner.
owned() {
  signed "$dir/owner" || return 1
  owner=$signer
}

# commanded: the command's own process lives; its pid in $cmd.
commanded() {
  cmd= cmd_start=
  [ ! -e "$dir/cmd" ] || { read -r cmd cmd_start <"$dir/cmd"; } 2>/dev/null
  [ -n "$cmd_start" ] && living "$cmd" "$cmd_start"
}

# create FILE TEXT: true for exactly one caller, ever.
create() {
  set -C
  { printf '%s\n' "$2" >"$1"; } 2>/dev/null
  created=$?
  set +C
  return $created
}

# forbid TEXT: make sure that the run is never launched; false when it was (or is just being).
forbid() {
  create "$dir/go" "$1" && return 0
  first_line "$dir/go"
  # Created but without its word: the disk is full. Only the launcher checks that its word is there.
  [ "$line" != launch ]
}

# marked MARK: pids whose environment carries it, in $pids. This finds what left its process group
# and session; not what also wiped its environment.
marked() {
  pids=
  for marked_file in $(carriers "$1" 2>/dev/null); do
    marked_pid=${marked_file#/proc/}
    case $marked_file in /proc/*/environ) pids="$pids ${marked_pid%/environ}" ;; esac
  done
}

# carriers MARK: the files of /proc that hold it, and maybe others. An environment separates its
# variables by NUL, and busybox's grep reads no further than the first. So it has to find a text of
# ours behind a NUL too; when it cannot, slower tools do the work.
carriers() {
  behind_nul='RDEV_BEHIND_NUL=5c1f;'
  [ -s "$runs/.nul" ] || printf 'x\000%s\n' "$behind_nul" >"$runs/.nul"
  carriers=$(grep -lsF -e "$1" -e "$behind_nul" /proc/[0-9]*/environ "$runs/.nul")
  case $carriers in
  *.nul*) printf '%s\n' "$carriers" ;;
  *)
    if command -v strings >/dev/null; then
      strings -f /proc/[0-9]*/environ | grep -F -e "$1" | cut -d: -f1
    else
      for carrier in /proc/[0-9]*/environ; do
        tr '\0' '\n' <"$carrier" | grep -qF -e "$1" && printf '%s\n' "$carrier"
      done
    fi
    ;;
  esac
}

# hit SIGNAL PIDS
hit() {
  hit_signal=$1
  shift
  [ $# -eq 0 ] || kill -s "$hit_signal" "$@" 2>/dev/null
}

# position PID FD: where that open file stands, in $pos; empty when it cannot be told.
position() {
  pos=
  { read -r _ pos <"/proc/$1/fdinfo/$2"; } 2>/dev/null
}

# size FILE, in $size
size() {
  size=0
  [ -s "$1" ] && size=$(wc -c <"$1") && size=$((size))
  return 0
}

# --- what state is a run in ----------------------------------------------------------------------

# fresh: the run directory is too young to judge. Between mkdir and the owner's line lie
# microseconds; five seconds are for a stopped or swapped-out machine.
fresh() {
  fresh_born=$(stat -c %Y "$dir" 2>/dev/null) || return 1
  fresh_now=$(date +%s)
  [ $((fresh_now - fresh_born)) -lt 5 ]
}

# look: the run's state, in $state.
look() {
  if [ ! -d "$dir" ]; then
    state=absent
  elif [ -e "$dir/exit" ]; then
    state=done
  elif owned; then
    look_owned
  elif [ -e "$dir/exit" ]; then # it ended between the two looks
    state=done
  elif is_refused; then
    state=refused
  elif [ ! -e "$dir/owner" ] && fresh; then
    state=starting
  elif [ ! -e "$dir/owner" ] && ! forbid lost; then # the claimant was only slow
    state=running
  elif signed "$dir/reaper"; then # its record is about to be written
    state=orphan
  else
    marked "RDEV_COMMAND_ID=$id;"
    if [ -n "$pids" ]; then state=orphan; else state=lost; fi
  fi
}

look_owned() {
  if is_refused; then
    state=refused
  elif [ -e "$dir/cmd" ]; then
    state=running
  else
    state=starting
  fi
}

# is_refused: a tombstone. An empty `go` is one too: a full disk swallowed the word, and the only
# other who creates it empty-handed dies before its launch.
is_refused() {
  [ -e "$dir/go" ] && [ ! -e "$dir/why" ] || return 1
  first_line "$dir/go"
  [ -z "$line" ] || [ "$line" = refused ]
}

# report: one line on the run in its $state.
report() {
  case $state in
  done)
    first_line "$dir/exit"
    printf 'done %s\n' "$line"
    ;;
  absent) printf 'absent\n' ;;
  *)
    sizes
    printf '%s out=%s err=%s\n' "$state" "$out_size" "$err_size"
    ;;
  esac
}

# sizes: of both spools, in $out_size and $err_size; without a fork while the supervisor lives.
sizes() {
  out_size= err_size=
  if owned; then
    position "$owner" 8
    out_size=$pos
    position "$owner" 9
    err_size=$pos
  fi
  [ -n "$out_size" ] || { size "$dir/out" && out_size=$size; }
  [ -n "$err_size" ] || { size "$dir/err" && err_size=$size; }
}

# --- start ---------------------------------------------------------------------------------------

# The process that was called stays with the caller and follows; the supervisor is its grandchild in
# a session of its own. The grandchild must not come from `&`: a shell gives its background children
# an ignored SIGINT for ever, and claude and most programs are asked to stop with SIGINT. So it is an
# element of a foreground pipeline, and the other element kills the shell that would wait for it.
verb_start() {
  [ "$setsid" != setsid ] || refusal unsupported "the workspace has no setsid"
  set -- sh "$script" own "$runs" "$id" "$@"
  if [ -n "${BASH_VERSION-}" ]; then
    # bash passes on variables that have no valid name and that it can therefore not unset; env can.
    while IFS= read -r odd; do
      [ -z "$odd" ] || set -- -u "$odd" "$@"
    done <<END
$(odd_names)
END
    [ "$1" = sh ] || set -- env "$@"
  fi
  exec 4<&0 6>&2
  {
    reply=$(
      read -r self _ </proc/self/stat
      {
        "$setsid" "$@" <&4 >&5 2>&6 4<&- 5>&- 6>&- |
          kill -s KILL "$self"
      } 5>&1
    )
  } 2>/dev/null
  exec 4<&- 6>&-
  printf '%s\n' "${reply:-refused unsupported the supervisor did not start}"
  case $reply in 'won running'*) ;; *) return ;; esac
  follow_as out
  pump
}

# odd_names: everything before a `=` in our environment that is no name, one a line.
odd_names() {
  tr '\0' '\n' <"/proc/$$/environ" | sed -n 's/=.*//; /^[A-Za-z_][A-Za-z0-9_]*$/d; p'
}

verb_own() {
  # Whoever called may be gone before we answer; that must not end a claimed run. Unlike ignored
  # signals, trapped ones are back to normal in the command.
  trap : HUP INT PIPE QUIT TERM
  job_bytes=$1 stdin_bytes=$2
  take_payload || refusal bad_job "the job arrived incomplete"
  room "$3" "$4"
  claim
  # From here on the run is ours, and whatever happens to it is told in its directory.
  eval "$job"
  job=
  pipes= out_relay= err_relay= watcher= feeder= orphans=0 elapsed_ms=0
  enter || conclude start_failed "$detail"
  prepare || conclude start_failed "$detail"
  create "$dir/go" launch || true
  first_line "$dir/go"
  [ $created -eq 0 ] && [ "$line" = launch ] || forbidden
  printf 'won running out=0 err=0\n'
  exec >/dev/null
  run
}

# refusal CODE TEXT: say no; nothing is left behind.
refusal() {
  printf 'refused %s %s\n' "$1" "$2"
  exit 0
}

# take_payload: the job in $job, and in descriptor 7 the command's first input, when there is any.
# The job is never written to a file that keeps its name: it holds secrets.
take_payload() {
  job=
  if [ "$stdin_bytes" -eq 0 ] && [ "$job_bytes" -le 4096 ]; then
    # `read` takes a pipe byte by byte and so not one too many; up to here that beats a process.
    while [ ${#job} -lt "$job_bytes" ]; do
      IFS= read -r line || return 1
      job="$job$line$newline"
    done
  elif [ "$stdin_bytes" -eq 0 ]; then
    job=$(head -c "$job_bytes" && printf .) # the dot keeps the newline before it
    job=${job%.}
  else
    payload=$runs/.payload.$$
    true >"$payload" || return 1
    exec 6>"$payload" 7<"$payload"
    rm -f "$payload"
    # Both in one go: some `head` reads more than it was asked for, and that would be lost.
    head -c $((job_bytes + stdin_bytes)) >&6 || refusal no_space "the input does not fit the disk"
    position $$ 6
    exec 6>&-
    [ "$pos" -eq $((job_bytes + stdin_bytes)) ] || return 1
    job=$(dd bs="$job_bytes" count=1 <&7 2>/dev/null && printf .)
    job=${job%.}
  fi
  [ ${#job} -eq "$job_bytes" ]
}

# room MIN_FREE_KB BUDGET_KB: refuse to start rather than fill the disk. What all spools use is
# counted by gc: counting it here would make every start slower with every run that is kept. How much
# is free was noted by gc and by the last run that ended; only when that was little, we look again.
room() {
  first_line "$runs/.used_kb"
  [ "${line:-0}" -le "$2" ] || refusal no_space "the spools use $line KiB of $2"
  first_line "$runs/.free_kb"
  # 4 GiB above the limit: four runs at the usual cap.
  [ "${line:-0}" -lt $(($1 + 4194304)) ] || return 0
  note_free
  case $free in
  '' | *[!0-9]*) ;; # a file system that does not tell; every spool is still capped
  *) [ "$free" -ge "$1" ] || refusal no_space "$free KiB are free, $1 are needed" ;;
  esac
}

# note_free: the free KiB where runs are, in $free and for the next start.
note_free() {
  free=$(df -Pk "$runs" 2>/dev/null | {
    read -r _
    read -r _ _ _ free _
    printf '%s' "$free"
  })
  { printf '%s\n' "$free" >"$runs/.free_kb"; } 2>/dev/null || true
}

# claim: mkdir is the lock; who loses says what is there.
claim() {
  if ! claim_error=$(mkdir "$dir" 2>&1); then
    [ -d "$dir" ] || refuse_claim "$claim_error"
    look
    printf 'exists '
    report
    exit 0
  fi
  # exit.new is a reserve: when the disk is full at the end, the exit record still has its place.
  if ! sign "$dir/owner" ||
    ! { printf '%1024s\n' '' >"$dir/exit.new" && true >"$dir/log"; } 2>/dev/null; then
    rm -rf "$dir"
    refusal no_space "the disk is full"
  fi
  exec </dev/null 2>>"$dir/log"
}

refuse_claim() {
  case $1 in
  *[Nn]o\ space* | *quota*) refusal no_space "$1" ;;
  *) refusal read_only "$1" ;;
  esac
}

# enter: go to the job's cwd. We are then *in* the directory that was checked, so nobody can swap it
# for a symlink between the check and the launch.
enter() {
  detail=workspace_missing
  cd -P -- "$workspace" 2>/dev/null || return 1
  root=${PWD%/}
  case $cwd in /*) ;; *) cwd=$root/$cwd ;; esac
  detail=cwd_missing
  cd -P -- "$cwd" 2>/dev/null || return 1
  detail=cwd_outside
  case $PWD/ in "$root"/*) ;; *) return 1 ;; esac
}

# prepare: pipes and spools. FIFOs, so that a relay can cap what the command writes; on a file system
# that has none they live in the temporary directory.
# Descriptors: 4 err pipe, 6 out pipe, 7 the command's stdin, 8 out spool, 9 err spool.
# Background parts are `(subshells)`: with a redirection on a bare function, dash keeps a copy of what
# was redirected, and a relay that keeps the writing end of its own pipe never sees its end.
prepare() {
  set -- out.pipe
  [ "$streams" = merged ] || set -- "$@" err.pipe
  [ "$input" = closed ] || set -- "$@" in.pipe
  detail=no_fifo
  make_pipes "$@" || return 1
  detail=no_space
  prepare_input || return 1
  job_files "$dir" || return 1
  remember_session
  true >"$dir/out" || return 1
  exec 8>"$dir/out"
  # Each pipe is opened both ways first, so that no open waits for a partner, and both ends here, so
  # that nobody opens it by a name that is gone.
  exec 5<>"$pipes/out.pipe" 3<"$pipes/out.pipe" 6>"$pipes/out.pipe" 5>&-
  (relay) <&3 >&8 3<&- 6>&- 7<&- 8>&- &
  out_relay=$!
  exec 3<&-
  [ "$streams" = separate ] || return 0
  true >"$dir/err" || return 1
  exec 9>"$dir/err"
  exec 5<>"$pipes/err.pipe" 3<"$pipes/err.pipe" 4>"$pipes/err.pipe" 5>&-
  (relay) <&3 >&9 3<&- 4>&- 6>&- 7<&- 8>&- 9>&- &
  err_relay=$!
  exec 3<&-
}

make_pipes() {
  pipes=$dir
  (cd "$pipes" && exec mkfifo "$@") && return 0
  pipes=$(mktemp -d) && (cd "$pipes" && exec mkfifo "$@")
}

# relay: stdin to stdout up to $blocks (512 bytes each); the rest goes nowhere, so that the command
# neither blocks nor dies. Exits 3 when it hit the cap, 4 when the disk was full.
relay() {
  export RDEV_HELPER="$id;"
  trap '' XFSZ # a write beyond the limit is then an error to cat, not its death
  ulimit -f "$blocks"
  "$cat" && exit 0
  read -r self _ </proc/self/stat
  position "$self" 1
  "$cat" >/dev/null
  [ "${pos:-0}" -lt $((blocks * 512)) ] || exit 3
  exit 4
}

# remember_session: how much of claude's session was there before, in $written.
remember_session() {
  written=0
  [ -n "$session" ] || return 0
  for part in "$claude_config"/projects/*/"$session".jsonl; do
    size "$part"
    written=$size
  done
}

# transcript: how much claude wrote about this session and its subagents so far, in $transcript.
transcript() {
  transcript=0
  for part in "$claude_config"/projects/*/"$session".jsonl \
    "$claude_config"/projects/*/"$session"/*/*.jsonl; do
    size "$part"
    transcript=$((transcript + size))
  done
}

# silent_answer: stdout has no result, and yet the session's last word of this run is an answer.
silent_answer() {
  [ -n "$session" ] || return 1
  case $(tail -c 65536 "$dir/out") in *'"type":"result"'*) return 1 ;; esac
  for answer in "$claude_config"/projects/*/"$session".jsonl; do
    answer=$(tail -c "+$((written + 1))" "$answer" | grep -E '"role":"(assistant|user)"' | tail -n 1)
    case $answer in *'"role":"assistant"'*'"stop_reason":"end_turn"'*) return 0 ;; esac
  done 2>/dev/null
  return 1
}

# forbidden: somebody created `go` before us, so we must not launch.
forbidden() {
  if is_refused && [ "$line" = refused ]; then
    hit KILL $feeder
    forget
    printf 'exists refused out=0 err=0\n'
    exit 0
  fi
  detail=no_space
  [ ! -e "$dir/why" ] || detail=never_launched
  first_line "$dir/why"
  conclude "${line:-start_failed}" "$detail"
}

# conclude REASON DETAIL: the end of a run whose command was never launched.
conclude() {
  exec 4>&- 6>&-
  hit KILL $feeder
  settle "$out_relay"
  settle "$err_relay"
  out_cut= err_cut=
  seal "$dir/exit.new" "$1" - "$2"
  forget
  state=done
  printf 'won '
  report
  exit 0
}

# run: launch the command, be there when it ends, and say how.
run() {
  clock
  begun=$clock
  if [ $((run_cs + idle_cs)) -gt 0 ]; then
    (watch) 4>&- 6>&- 7<&- &
    watcher=$!
  fi
  launch
  code=$?
  exec 4>&- 6>&- 7<&-
  clock
  elapsed_ms=$(((clock - begun) * 10))
  reason=exited
  if [ -e "$dir/why" ]; then
    first_line "$dir/why"
    reason=${line:-killed}
  fi
  finish
}

# launch: the command, in the foreground (see verb_start); its exit code.
launch() {
  if [ "$streams" = merged ]; then
    (child "$setsid" "$id" "$dir") <&7 >&6 2>&6 6>&- 7<&- 8>&- 9>&-
  else
    (child "$setsid" "$id" "$dir") <&7 >&6 2>&4 4>&- 6>&- 7<&- 8>&- 9>&-
  fi
}

# child SETSID ID DIR: say who we are, then become the command. Once the environment is cleaned only the
# arguments can be relied on: any variable of ours may have been in it.
child() {
  read -r self _ </proc/self/stat
  process "$self"
  printf '%s %s\n' "$self" "$proc_start" >"$dir/cmd"
  names=
  # shellcheck disable=SC2046 # names, to be split
  command unset $(unwanted) _ 2>/dev/null
  job_exec "$1" "$2" "$3"
}

# unwanted: the names of all exported variables that the job does not keep. (The line of a name may
# also be the middle of a value that has several lines: then that variable goes, which was not ours.)
unwanted() {
  set -f
  IFS=$newline
  for name in $(export -p); do
    case $name in 'export '*) name=${name#export } ;; *) continue ;; esac
    name=${name%%=*}
    case $name in
    [0-9]* | *[!A-Za-z0-9_]* | '') ;;
    *) job_keeps "$name" || names="$names $name" ;;
    esac
  done
  printf '%s' "$names"
}

# --- input ---------------------------------------------------------------------------------------

# prepare_input: the command's stdin as descriptor 7. A file of its own even though 7 already stands
# at the right byte: who opens /dev/stdin again would read from byte 0, and there is the job.
prepare_input() {
  if [ "$stdin_bytes" -gt 0 ]; then
    cat <&7 >"$dir/in.0" || return 1
  fi
  if [ "$input" = open ]; then
    true >"$dir/in.open" || return 1
    exec 5<>"$pipes/in.pipe" 7<"$pipes/in.pipe" 3>"$pipes/in.pipe" 5>&-
    (feed) >&3 3>&- 7<&- &
    feeder=$!
    exec 3>&-
  elif [ "$stdin_bytes" -gt 0 ]; then
    exec 7<"$dir/in.0"
  else
    exec 7</dev/null
  fi
}

# feed: the pieces of input, in order, to stdout, as they come; end-of-file after the last.
feed() {
  export RDEV_HELPER="$id;"
  at=0
  # shellcheck disable=SC2086
  set -- $eager
  while :; do
    if [ -e "$dir/in.$at" ]; then
      "$cat" "$dir/in.$at" || exit 0 # the command closed its stdin
      size "$dir/in.$at"
      at=$((at + size))
      # shellcheck disable=SC2086
      set -- $busy
      continue
    fi
    first_line "$dir/in.last"
    [ "$line" != "$at" ] || exit 0
    owned || commanded || exit 0
    "$sleep" "${1:-$idle}"
    [ $# -eq 0 ] || shift
  done
}

verb_send() {
  offset=$1 bytes=$2
  look
  [ "$state" != absent ] && [ -e "$dir/in.open" ] || exit 66
  piece=$dir/.in.$$
  head -c "$bytes" >"$piece" || exit 64
  size "$piece"
  if [ "$size" -ne "$bytes" ]; then
    rm -f "$piece"
    exit 64
  fi
  deliver
  delivered=$?
  rm -f "$piece"
  if [ $delivered -ne 0 ]; then
    printf 'end %s\n' "$end"
    exit 65
  fi
  [ "$3" != last ] || create "$dir/in.last" "$end" || true
  printf 'end %s\n' "$end"
}

# deliver: $piece becomes the input at $offset, once. The name is the lock: of two senders one links.
deliver() {
  input_end
  if [ "$bytes" -eq 0 ]; then
    [ "$offset" -eq "$end" ]
  elif [ "$offset" -eq "$end" ] && [ ! -e "$dir/in.last" ] && ln "$piece" "$dir/in.$offset"; then
    end=$((end + bytes))
  else
    # A repeat has the same bytes at the same place.
    [ -e "$dir/in.$offset" ] && cmp -s "$piece" "$dir/in.$offset" && input_end
  fi
}

# input_end: where the input ends, in $end.
input_end() {
  end=0
  while [ -e "$dir/in.$end" ]; do
    size "$dir/in.$end"
    end=$((end + size))
  done
}

# --- limits of time ------------------------------------------------------------------------------

# watch: kill the command when it runs too long, or too long without output. It outlives a killed
# supervisor, so the limits hold for an orphan too.
watch() {
  export RDEV_HELPER="$id;"
  rest=
  trap 'hit KILL $rest; exit 0' TERM
  quiet_since=$begun sizes_before=0: transcript_before=-1
  # Looking ten times in an idle limit makes it late by at most a tenth; 5 s bound what may be left
  # over from us, and 0.05 s what a short limit costs.
  step=$((idle_cs / 10))
  [ $step -le 500 ] && [ $step -gt 0 ] || step=500
  [ $step -ge 5 ] || step=5
  while :; do
    watch_once
    seconds $((left * 10))
    "$sleep" "$seconds" & # the tool itself and no shell around it, so that killing it ends it
    rest=$!
    wait $rest
    owned || commanded || exit 0
  done
}

# watch_once: fire, or the centiseconds until the next look in $left.
watch_once() {
  clock
  left=$step
  if [ "$run_cs" -gt 0 ]; then
    [ $((clock - begun)) -lt "$run_cs" ] || expire run_timeout
    [ $((begun + run_cs - clock)) -ge $left ] || left=$((begun + run_cs - clock))
  fi
  if [ "$idle_cs" -gt 0 ]; then
    position $$ 8
    sizes_now=$pos
    position $$ 9
    sizes_now=$sizes_now:$pos
    [ "$sizes_now" = "$sizes_before" ] && ! transcript_grew || quiet_since=$clock
    sizes_before=$sizes_now
    [ $((clock - quiet_since)) -lt "$idle_cs" ] || expire idle_timeout
  fi
}

# transcript_grew: claude works although its stdout is silent.
transcript_grew() {
  [ -n "$session" ] || return 1
  transcript
  [ "$transcript" -ne "$transcript_before" ] || return 1
  transcript_before=$transcript
}

expire() {
  trap - TERM
  create "$dir/why" "$1" && reap graceful "$interrupt"
  exit 0
}

# --- the end -------------------------------------------------------------------------------------

# finish: the command has ended; end what it left, drain the pipes, write the record.
finish() {
  sweep
  hit TERM $watcher
  hit KILL $feeder
  settle "$out_relay"
  out_cut=$cut
  settle "$err_relay"
  err_cut=$cut
  detail=-
  ! silent_answer || detail=answer_in_transcript
  seal "$dir/exit.new" "$reason" "$code" "$detail"
  forget
  note_free
  exit 0
}

# sweep: end every process that carries the command's mark, counted in $orphans. What outlives a
# command that ended by itself is asked first and gets a second; after a kill it was asked already.
sweep() {
  orphans=0 swept=' '
  marked "RDEV_COMMAND_ID=$id;"
  [ -n "$pids" ] || return 0
  clock
  sweep_begun=$clock
  if [ "$reason" = exited ]; then
    tally
    # shellcheck disable=SC2086
    hit TERM $pids
    while [ -n "$pids" ] && [ $((clock - sweep_begun)) -lt 100 ]; do
      nap 20
      marked "RDEV_COMMAND_ID=$id;"
      clock
    done
  fi
  # Again and again, since a process may fork while we look; 5 s because one that is stuck in the
  # kernel dies when it leaves it, whatever we do.
  while [ -n "$pids" ] && [ $((clock - sweep_begun)) -lt 600 ]; do
    tally
    # shellcheck disable=SC2086
    hit KILL $pids
    nap 5
    marked "RDEV_COMMAND_ID=$id;"
    clock
  done
}

# tally: count each of $pids once.
tally() {
  for tally_pid in $pids; do
    case $swept in *" $tally_pid "*) continue ;; esac
    swept="$swept$tally_pid "
    orphans=$((orphans + 1))
  done
}

# settle RELAY: wait for a relay to read its pipe to the end; why it cut the spool, in $cut. A
# process that wiped our mark may hold the pipe open; after 2 s we take no more from it.
settle() {
  cut=
  [ -n "$1" ] || return 0
  for settle_ms in 1 1 2 4 8 16 32 64 128 256 500 500 500; do
    process "$1" || break
    case $proc_state in Z | X) break ;; esac
    nap $settle_ms
  done
  if process "$1" && [ "$proc_state" != Z ] && [ "$proc_state" != X ]; then
    hit KILL "$1"
    end_helpers
  fi
  wait "$1"
  case $? in 3) cut=cap ;; 4) cut=disk_full ;; esac
}

end_helpers() {
  marked "RDEV_HELPER=$id;"
  # shellcheck disable=SC2086
  hit KILL $pids
}

# forget: the end of what only a live run needs.
forget() {
  [ -n "$pipes" ] || return 0
  set -- "$pipes/out.pipe" "$pipes/err.pipe" "$pipes/in.pipe"
  [ "$input" = open ] || set -- "$@" "$dir/in.0"
  rm -f "$@"
  [ "$pipes" = "$dir" ] || rmdir "$pipes"
}

# total FILE: its size and SHA-256 in $size and $sha (`-` when nothing here can compute it). Nobody
# writes to it any more.
total() {
  size "$1"
  sha=$empty_sha
  [ "$size" -gt 0 ] || return 0
  sha=$(sha256sum <"$1" 2>/dev/null || openssl dgst -sha256 -r <"$1" 2>/dev/null)
  sha=${sha%% *}
  sha=${sha:--}
}

# seal NEW REASON CODE DETAIL: write the exit record, whole or not at all.
seal() {
  [ ! -e "$dir/private.0" ] || rm -f "$dir"/private.*
  total "$dir/out"
  record="reason=$2 code=$3 out=$size out_sha=$sha out_cut=${out_cut:--}"
  total "$dir/err"
  record="$record err=$size err_sha=$sha err_cut=${err_cut:--}"
  record="$record orphans=$orphans elapsed_ms=$elapsed_ms ended=$(date +%s) detail=$4"
  # Over the reserved bytes. Where even that needs new space the run stays `running` until there is
  # some: whatever we said without having written it could be unsaid by our death.
  until { printf '%s\n' "$record" 1<>"$1"; } && mv "$1" "$dir/exit"; do
    "$sleep" 1
  done
}

# --- kill ----------------------------------------------------------------------------------------

verb_kill() {
  look
  case $state in
  starting | running | orphan)
    create "$dir/why" "$2" || true # the first reason stays
    forbid killed || true          # not launched yet: then it never will be
    "$setsid" sh "$script" reap "$runs" "$id" "$1" "$3" </dev/null >/dev/null 2>>"$dir/log" &
    ;;
  esac
  report
}

verb_reap() {
  reap "$1" "$2"
}

# reap MODE INTERRUPT_FIRST: signals of growing force until the command's own process is gone. The
# supervisor sees that and ends the rest; when it is dead itself, we do that too.
reap() {
  sign "$dir/reaper" || true # a full disk: at worst the run is called lost until it is sealed
  reap_ms=5
  # Launched, but its pid is not written down yet.
  while owned && [ ! -e "$dir/exit" ] && [ ! -s "$dir/cmd" ] && launching; do
    nap $reap_ms
    [ $reap_ms -ge 200 ] || reap_ms=$((reap_ms * 2))
  done
  case $1 in
  graceful)
    [ "$2" != 1 ] || ask INT 500
    ask TERM 1000
    ;;
  shutdown) ask TERM 200 ;;
  esac
  ask KILL 500
  owned || [ -e "$dir/exit" ] || bury
}

launching() {
  first_line "$dir/go"
  [ "$line" = launch ]
}

# ask SIGNAL CENTISECONDS: to the command's group, then wait that long for the command to go.
ask() {
  commanded || return 0
  # The command leads its group from its `setsid` on; an instant earlier there is only the process.
  # (Not `-s NAME --`: busybox sends that signal and fails.)
  kill "-$1" "-$cmd" 2>/dev/null || hit "$1" "$cmd"
  clock
  ask_begun=$clock ask_ms=5
  while [ $((clock - ask_begun)) -lt "$2" ]; do
    commanded || return 0
    nap $ask_ms
    [ $ask_ms -ge 100 ] || ask_ms=$((ask_ms * 2))
    clock
  done
}

# bury: the run's supervisor is dead: end what is left and write the record in its place.
bury() {
  reason=killed
  sweep
  for bury_ms in 10 20 40 80 160 320 640 640; do
    marked "RDEV_HELPER=$id;"
    [ -n "$pids" ] || break
    nap $bury_ms
  done
  end_helpers
  first_line "$dir/why"
  out_cut= err_cut= elapsed_ms=0
  true >"$dir/exit.new.$$" || true
  seal "$dir/exit.new.$$" "${line:-killed}" - supervisor_died
}

# --- follow, and the rest ------------------------------------------------------------------------

verb_follow() {
  spool=out
  [ "$1" != stderr ] || spool=err
  look
  [ "$state" != absent ] || exit 66
  marked "RDEV_FOLLOWER=$id.$spool;"
  # shellcheck disable=SC2086
  hit KILL $pids
  follow_as "$spool"
  if [ "$2" -gt 0 ]; then
    size "$dir/$spool"
    if [ "$2" -gt "$size" ]; then
      printf 'rdev: end %s\n' "$size" >&2
      exit 65
    fi
    exec 3<"$dir/$spool"
    opened=yes
    # Moves the descriptor, reads nothing: one lseek, whatever the offset.
    dd bs=1 skip="$2" count=0 <&3 2>/dev/null
  fi
  pump
}

# follow_as SPOOL: become its latest follower. The mark is how a successor finds us when we are stuck
# writing to somebody who does not read; the token tells us when we are just between two looks.
follow_as() {
  spool=$1 spool_fd=8 token= opened= trusted=0
  [ "$spool" = out ] || spool_fd=9
  export RDEV_FOLLOWER="$id.$spool;"
  # A full disk only costs the token.
  { printf '%s\n' $$ >"$dir/follow.$spool"; } 2>/dev/null && token=$$
}

# pump: the spool from descriptor 3 on to stdout until the run has ended and all of it was passed on.
pump() {
  # shellcheck disable=SC2086
  set -- $eager
  while :; do
    # Before reading, so that the pass that comes after it reads everything.
    last_pass=
    [ ! -e "$dir/exit" ] || last_pass=yes
    pass
    if [ -n "$moved" ]; then
      # shellcheck disable=SC2086
      set -- $busy
      [ -n "$last_pass" ] || continue
    fi
    [ -z "$last_pass" ] || break
    still_wanted
    [ -n "$tended" ] || abandoned || break
    "$sleep" "${1:-$idle}" || exit 75 # killed by our successor
    [ $# -eq 0 ] || shift
  done
  look
  {
    printf 'rdev: '
    report
  } >&2
}

# pass: hand over what is new; $moved when something was, $tended when the supervisor lives.
pass() {
  moved= tended= there=
  if [ -z "$opened" ]; then
    [ -e "$dir/$spool" ] || { owned && tended=yes; return 0; }
    exec 3<"$dir/$spool"
    opened=yes
  fi
  position $$ 3
  here=$pos
  # The supervisor's open spool says both that it lives and how much there is, in one short line. Its
  # pid is checked to be still the supervisor's every 16th time.
  if [ $trusted -gt 0 ]; then
    trusted=$((trusted - 1))
    position "$owner" $spool_fd
    there=$pos
  fi
  if [ -n "$there" ]; then
    tended=yes
  elif owned; then
    trusted=16 tended=yes
    position "$owner" $spool_fd
    there=$pos
  fi
  # Equal only when the supervisor's own descriptor says so; in doubt we read.
  [ "$here" != "$there" ] || return 0
  "$cat" <&3 || exit 75
  position $$ 3
  [ "$pos" = "$here" ] || moved=yes
}

# still_wanted: end when another follower took over, or whoever called us is gone. (A parent of 0 or
# 1 tells nothing: it is outside of the container, or the container's first process.)
still_wanted() {
  first_line "$dir/follow.$spool"
  [ -z "$line" ] || [ -z "$token" ] || [ "$line" = "$token" ] || exit 75
  [ "$PPID" -le 1 ] || [ -d "/proc/$PPID" ] || exit 75
}

# abandoned: the supervisor is dead; true as long as something may still write to the spool.
abandoned() {
  look
  case $state in
  absent) exit 66 ;;
  refused) return 1 ;;
  lost) ;;
  *) return 0 ;;
  esac
  marked "RDEV_HELPER=$id;"
  [ -z "$pids" ] || return 0
  pass
  [ -n "$moved" ]
}

verb_status() {
  look
  report
}

# verb_refuse: the tombstone. The mkdir of an unknown run, or else its `go`, whoever creates it first.
verb_refuse() {
  if ! refuse_error=$(mkdir "$dir" 2>&1) && [ ! -d "$dir" ]; then
    printf 'error %s\n' "$refuse_error"
    return
  fi
  if [ ! -e "$dir/exit" ] && { create "$dir/go" refused || is_refused; }; then
    state=refused
  else
    look
  fi
  report
}

verb_gc() {
  gc_now=$(date +%s)
  rm -rf "$runs"/.gone.*
  find "$runs" -maxdepth 1 -name '.payload.*' -mmin +60 -exec rm -f {} +
  removed=$(
    find "$runs" -mindepth 1 -maxdepth 1 -type d ! -name '.*' -exec stat -c '%Y %n' {} + |
      {
        count=0
        while read -r born dir; do
          [ $((gc_now - born)) -ge "$1" ] || continue
          id=${dir##*/}
          collect && count=$((count + 1))
        done
        printf '%s' $count
      }
  )
  note_free
  used=$(du -sk "$runs")
  printf '%s\n' "${used%%[!0-9]*}" >"$runs/.used_kb.$$" && mv "$runs/.used_kb.$$" "$runs/.used_kb"
  printf 'removed %s\n' "$removed"
}

# collect: remove the run in $dir when it has ended. Renamed first: half a directory would look like
# a run that is lost.
collect() {
  look
  case $state in done | lost | refused) ;; *) return 1 ;; esac
  mv "$dir" "$runs/.gone.$id" || return 1
  for gone_spool in out err; do
    marked "RDEV_FOLLOWER=$id.$gone_spool;"
    # shellcheck disable=SC2086
    hit KILL $pids
  done
  rm -rf "$runs/.gone.$id"
}

# --- the way in ----------------------------------------------------------------------------------

main() {
  [ $# -ge 3 ] || exit 64
  verb=$1 runs=$2 id=$3
  shift 3
  case $id in
  -) [ "$verb" = gc ] || exit 64 ;;
  *[!A-Za-z0-9_-]* | -* | '') exit 64 ;;
  esac
  dir=$runs/$id
  [ -O "$runs" ] || {
    printf 'refused read_only %s is not a directory of this user\n' "$runs"
    exit 0
  }
  # By path, because some busybox runs its own tools without exec, and then our marks are not in
  # their environment. And setsid, because the PATH of a job may not lead to it.
  locate cat
  cat=$found
  locate sleep
  sleep=$found
  locate setsid
  setsid=$found
  case $verb:$# in
  start:4 | own:4 | follow:2 | send:3 | kill:3 | reap:2 | status:0 | refuse:0 | gc:1) ;;
  *) exit 64 ;;
  esac
  "verb_$verb" "$@"
}

main "$@"
exit
