#!/bin/sh
# config.sh: the files below .claude of one workspace: looked at, and each replaced as a whole.
#
#   config.sh read RUNS WORKSPACE KIND|- PATH
#   config.sh put  RUNS WORKSPACE KIND PATH EXPECTED WANTED TOKEN HEAD_BYTES BYTES   on stdin: see put_*
#   config.sh rm   RUNS WORKSPACE KIND PATH EXPECTED TOKEN
#
# KIND is commands, skills or agents. PATH is below .claude/KIND: `sub/name.md`, or a skill's folder.
# EXPECTED and WANTED are fingerprints (see there); EXPECTED is `absent` for what must not be there.
#
# No name given here leads out of the workspace, whatever is planted or swapped meanwhile. A shell has no
# openat, but it has a working directory: every folder is entered by one plain name that is no link
# (`step`), the kernel says where that led, and from then on names of one component are relative to
# the folder itself, wherever somebody may move it. Files are opened for reading only if what was
# opened is what has the name, are made under `set -C` (O_EXCL), and get their name by rename.
#
# Answers are lines; the last one is `end`, or the verdict of a change: done FINGERPRINT, differs
# FINGERPRINT|absent, refused CODE TEXT. One at a time a workspace, by flock(1): the kernel lets go of
# a lock whose holder was killed.
#
# Names of ours, none of which claude takes for a command, all of which `repair` knows:
#   .rdev-tmp.TOKEN       a file that is being written
#   .rdev-new.TOKEN       a skill that is being written
#   .rdev-old.NAME        the skill NAME until its successor is in place
#   .rdev-gone.TOKEN      a skill that is being removed
#   .rdev-SKILL.md        the SKILL.md of all these: claude takes any folder with a SKILL.md for a skill

set -u
LC_ALL=C
export LC_ALL
unset CDPATH
newline='
'
IFS=" 	$newline"
bom=$(printf '\357\273\277')

most_entries=1000        # of one kind; the answer says when there are more
most_files=64            # of one skill
most_bytes=524288        # of one skill, and so of everything that is shown whole
most_front_bytes=16384   # of what is looked at of a file for its frontmatter
most_front_lines=500
most_waits=100           # twentieths of a second for the lock

say() {
  printf '%s\n' "$*"
}

refuse() {
  printf 'refused %s\n' "$*"
  exit 0
}

# --- going in ------------------------------------------------------------------------------------

# step NAME: into a folder of the one we stand in. After a failure we may stand anywhere: leave.
step() {
  step_from=${PWD%/}
  [ ! -L "./$1" ] && cd -P "./$1" 2>/dev/null && [ "$PWD" = "$step_from/$1" ]
}

# here NAME: something of this name, even a dangling link, is in the folder we stand in.
here() {
  [ -e "./$1" ] || [ -L "./$1" ]
}

# into NAME make|look: step into it, made first if it may be; 1 when it is not there.
into() {
  if ! here "$1"; then
    [ "$2" = make ] || return 1
    mkdir "./$1" 2>/dev/null || here "$1" || refuse failed "cannot make the folder $1"
  fi
  step "$1" || refuse linked "$1 is a link, or no folder"
}

# enter KIND make|look: into .claude/KIND of the workspace; 1 when it is not there.
enter() {
  cd -P "$workspace" 2>/dev/null || refuse missing "the workspace is not there"
  into .claude "$2" && into "$1" "$2"
}

# descend PATH make|look: into all folders of PATH; its last part is left in $leaf.
descend() {
  leaf=$1
  while :; do
    case $leaf in */*) ;; *) return 0 ;; esac
    into "${leaf%%/*}" "$2" || return 1
    leaf=${leaf#*/}
  done
}

# alone: nobody else reads or changes this workspace's .claude until we end.
alone() {
  command -v flock >/dev/null || refuse failed "this workspace has no flock"
  exec 9>>"$runs/.config.lock"
  alone_waits=0
  until flock -n 9; do
    alone_waits=$((alone_waits + 1))
    [ $alone_waits -lt $most_waits ] || refuse busy "somebody else changes the configuration"
    sleep 0.05
  done
}

# --- fingerprints --------------------------------------------------------------------------------

# hash: of stdin.
hash() {
  hash_of=$(sha256sum) || return 1
  printf '%s\n' "${hash_of%% *}"
}

# fingerprint_file NAME: SHA-256 of its bytes.
fingerprint_file() {
  {
    same "$1" && hash <&3
  } 3<"./$1"
}

# fingerprint_folder: of the one we stand in: its files, and which of them can be executed. SKILL.md
# goes by that name, hidden or not, and is text.
fingerprint_folder() {
  {
    find . -type f -exec sha256sum {} + | sed 's|  \./\.rdev-SKILL\.md$|  ./SKILL.md|' | sort
    find . -type f -perm -0100 ! -path ./SKILL.md ! -path ./.rdev-SKILL.md | sort
  } | hash
}

# same NAME: descriptor 3 is the plain file of that name, and the name no link.
same() {
  [ ! -L "./$1" ] && [ -f "./$1" ] && [ "./$1" -ef /proc/self/fd/3 ]
}

# fingerprint NAME: of the file or folder of that name, in $found; `absent` when there is none.
fingerprint() {
  found=absent
  here "$1" || return 0
  if [ "$kind" = skills ]; then
    found=$(step "$1" && fingerprint_folder)
  elif [ ! -L "./$1" ] && [ -f "./$1" ]; then
    found=$(fingerprint_file "$1")
  else
    found=
  fi
  [ -n "$found" ] || refuse linked "$1 is a link, or nothing that rdev would change"
}

# --- reading -------------------------------------------------------------------------------------

verb_read() {
  alone
  (enter skills look && repair) >/dev/null
  index commands
  index skills
  index agents
  if [ "$kind" != - ]; then
    say item
    (item)
  fi
  say end
}

# entries KIND: size, mode and path of everything below, most_entries + 1 at most. Of a skill only
# whether it has a SKILL.md, however that is spelt.
entries() {
  case $1 in
  skills) set -- -maxdepth 2 -path './*/*' ! -iname skill.md -prune -o ;;
  *) set -- -maxdepth 8 ;; # deeper than anybody's folders, so that a loop of mounts ends
  esac
  find . -mindepth 1 "$@" -name "*$newline*" -prune -o -exec stat -c '%s %f %n' {} + 2>/dev/null |
    head -n $((most_entries + 1))
}

# index KIND
index() {
  say "kind $1"
  (
    enter "$1" look || exit 0
    entries "$1" | while IFS= read -r entry; do
      say "entry $entry"
      size=${entry%% *} rest=${entry#* }
      mode=${rest%% *} path=${rest#* ./}
      case $mode:$1:$path in
      8*:skills:*/SKILL.md | 8*:commands:*.md | 8*:agents:*.md) ;;
      *) continue ;;
      esac
      case $path in
      */*) (descend "$path" look && front "$leaf" "$size") ;;
      *) front "$path" "$size" ;;
      esac
    done
  )
}

# front NAME SIZE: the lines of its frontmatter, each behind a bar.
front() {
  {
    same "$1" || return 0
    if [ "$2" -le $most_front_bytes ]; then
      front_lines <&3
    else
      head -c $most_front_bytes <&3 | front_lines
    fi
  } 2>/dev/null 3<"./$1"
}

front_lines() {
  IFS= read -r front_line || [ -n "$front_line" ] || return 0
  case $front_line in --- | ---[[:space:]]* | "$bom"---*) ;; *) return 0 ;; esac
  say "|$front_line"
  front_left=$most_front_lines
  while [ $front_left -gt 0 ]; do
    IFS= read -r front_line || [ -n "$front_line" ] || return 0
    say "|$front_line"
    case $front_line in --- | ---[[:space:]]*) return 0 ;; esac
    front_left=$((front_left - 1))
  done
}

# item: all of the one thing that was asked for.
item() {
  enter "$kind" look && descend "$path" look && here "$leaf" || {
    say absent
    return 0
  }
  if [ "$kind" = skills ]; then
    step "$leaf" || refuse linked "$leaf is a link, or no folder"
    say folder
    parts
  elif [ -L "./$leaf" ] || [ ! -f "./$leaf" ]; then
    refuse linked "$leaf is a link, or no file"
  else
    say file
    size=$(wc -c <"./$leaf")
    if [ "$size" -le $most_bytes ]; then part "$leaf" -; else say large; fi
  fi
}

# parts: the files below the folder we stand in, or only that they are too many or too big.
parts() {
  [ -z "$(find . -name "*$newline*" -o -name '*\\*')" ] || say odd "a name that rdev cannot write"
  find . ! -type d ! -type f ! -name "*$newline*" | head -n 3 | while IFS= read -r entry; do
    say "odd ${entry#./}"
  done
  list=$(find . -type f ! -name "*$newline*" -exec stat -c '%s %n' {} + | head -n $((most_files + 1)))
  count=0 sum=0
  while IFS= read -r entry; do
    [ -n "$entry" ] || continue
    count=$((count + 1)) sum=$((sum + ${entry%% *}))
  done <<LIST
$list
LIST
  if [ $count -gt $most_files ] || [ $sum -gt $most_bytes ]; then
    say large
    return 0
  fi
  printf '%s\n' "$list" | while IFS= read -r entry; do
    [ -n "$entry" ] || continue
    path=${entry#* ./}
    mode=-
    [ ! -x "./$path" ] || mode=x
    (descend "$path" look && part "$leaf" "$mode")
  done
}

# part NAME MODE: a file, from the folder we stand in.
part() {
  {
    same "$1" || return 0
    say "part $2 $path"
    head -c $((most_bytes + 1)) <&3 | base64
    say .
  } 3<"./$1"
}

# --- changing ------------------------------------------------------------------------------------

verb_put() {
  expected=$1 wanted=$2 token=$3 head_bytes=$4 bytes=$5
  umask 077
  exec 6>"$runs/.config.$token" 7<"$runs/.config.$token"
  rm -f "$runs/.config.$token"
  # All of it before anything else: what does not arrive whole changes nothing.
  head -c $((head_bytes + bytes)) >&6 || refuse failed "the content does not fit the disk"
  exec 6>&-
  umask 022
  alone
  how=look
  [ "$expected" != absent ] || how=make
  enter "$kind" $how && descend "$path" $how || {
    say differs absent
    exit 0
  }
  where=$PWD
  if [ "$kind" = skills ]; then
    repair
    agreed
    put_skill
  else
    rm -f ./.rdev-tmp.*
    agreed
    put_file
  fi
  settled
  say "done $wanted"
}

# agreed: go on only if what is there is what the caller has seen.
agreed() {
  fingerprint "$leaf"
  [ "$found" = "$expected" ] || {
    say "differs $found"
    exit 0
  }
}

# settled: we stand where we began, so what we did is where it was meant to be.
settled() {
  cd -P . && [ "$PWD" = "$where" ] || refuse moved "the folder was moved away meanwhile"
}

# put_file: stdin is the content.
put_file() {
  tmp=.rdev-tmp.$token
  set -C
  cat <&7 2>/dev/null >"./$tmp" || give_up "cannot write there"
  set +C
  [ "$(fingerprint_file "$tmp")" = "$wanted" ] || give_up "the content did not arrive whole"
  renamed=
  {
    mv -fT "./$tmp" "./$leaf" && renamed=yes && same "$leaf"
  } 3<"./$tmp" && return 0
  [ -n "$renamed" ] || give_up "cannot write there"
  refuse moved "$leaf was swapped for something else meanwhile"
}

give_up() {
  rm -f "./$tmp"
  refuse failed "$1"
}

# put_skill: stdin is a list of `SIZE x|- PATH` of HEAD_BYTES bytes, then the files in its order,
# SKILL.md under its hidden name. The new folder is complete before the old one is touched, and shows
# its SKILL.md at the very end: claude sees the old skill, for some milliseconds none, then the new.
put_skill() {
  new=.rdev-new.$token old=.rdev-old.$leaf
  mkdir "./$new" || refuse failed "cannot write there"
  (step "$new" && unpack) || {
    discard "$new"
    refuse failed "the files did not arrive whole"
  }
  if here "$leaf"; then
    (step "$leaf" && hide) || refuse failed "cannot write there"
    mv -T "./$leaf" "./$old" || {
      repair
      refuse failed "cannot write there"
    }
  fi
  mv -T "./$new" "./$leaf" || {
    repair
    refuse failed "cannot write there"
  }
  (step "$leaf" && unhide) || refuse moved "the skill was swapped for something else meanwhile"
  repair
}

# unpack: the files on descriptor 7, into the folder we stand in; true when they are what was meant.
unpack() {
  root=$PWD
  dd bs="$head_bytes" count=1 <&7 2>/dev/null | {
    while IFS= read -r entry; do
      size=${entry%% *} rest=${entry#* }
      (descend "${rest#* }" make && unpack_one "${rest%% *}") || exit 1
    done
  }
  cd -P . && [ "$PWD" = "$root" ] && [ "$(fingerprint_folder)" = "$wanted" ]
}

unpack_one() {
  set -C
  if [ "$size" -eq 0 ]; then
    true >"./$leaf"
  else
    dd bs="$size" count=1 <&7 2>/dev/null >"./$leaf"
  fi || return 1
  [ "$1" = - ] || chmod 755 "./$leaf"
}

hide() {
  [ ! -e ./SKILL.md ] || mv -fT ./SKILL.md ./.rdev-SKILL.md
}

unhide() {
  mv -fT ./.rdev-SKILL.md ./SKILL.md
}

verb_rm() {
  expected=$1 token=$2
  alone
  enter "$kind" look && descend "$path" look || {
    say differs absent
    exit 0
  }
  where=$PWD
  [ "$kind" != skills ] || repair
  agreed
  if [ "$kind" = skills ]; then
    (step "$leaf" && hide) && mv -T "./$leaf" "./.rdev-gone.$token" || {
      repair
      refuse failed "cannot remove it"
    }
    repair
  else
    rm -f "./$leaf" || refuse failed "cannot remove it"
  fi
  settled
  say done absent
}

# --- what a kill left behind ---------------------------------------------------------------------

# repair: in skills/: an old skill without its successor comes back, a hidden SKILL.md gets its name,
# everything else of ours goes.
repair() {
  for left in ./.rdev-old.*; do
    name=${left#./.rdev-old.}
    here "${left#./}" && ! here "$name" && mv -T "$left" "./$name"
  done
  for left in ./*/.rdev-SKILL.md; do
    [ -e "$left" ] || continue
    left=${left#./}
    (step "${left%%/*}" && unhide)
  done
  for left in ./.rdev-*; do
    ! here "${left#./}" || discard "${left#./}"
  done
}

# discard NAME: remove it and everything below, by no path of more than one part.
discard() {
  if [ -L "./$1" ] || [ ! -d "./$1" ]; then
    rm -f "./$1"
    return
  fi
  (step "$1" && clear_out)
  rmdir "./$1"
}

clear_out() {
  find . -mindepth 1 -maxdepth 1 ! -type d -exec rm -f {} +
  for inner in ./* ./.[!.]* ./..?*; do
    ! here "${inner#./}" || discard "${inner#./}"
  done
}

# --- the way in ----------------------------------------------------------------------------------

[ $# -ge 5 ] || exit 64
verb=$1 runs=$2 workspace=$3 kind=$4 path=$5
shift 5
case $kind in commands | skills | agents | -) ;; *) exit 64 ;; esac
case /$path/ in *//* | */./* | */../*) exit 64 ;; esac
[ -O "$runs" ] || refuse failed "$runs is not a directory of this user"
case $verb:$#:$kind in
read:0:* | put:5:[!-]* | rm:2:[!-]*) ;;
*) exit 64 ;;
esac
"verb_$verb" "$@"
exit
