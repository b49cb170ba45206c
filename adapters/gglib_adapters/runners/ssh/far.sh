# gglib's hands on the far machine: read by a POSIX sh from its standard input, after which each
# line calls one function. All state is in files: any shell can go on where another was cut off.
#
# $GGLIB_DATA/servers/SITE/ID holds one server:
#   nonce     "NONCE BOOT_ID" of the start that made it
#   handle    what a handle needs beyond the identity, as one line of JSON
#   port      the port it was promised
#   identity  "BOOT_ID PID START_TICKS BOOT_TIME", from the moment that its process exists
#   status    its exit status as sh tells it, once it has ended
#   asked     names the stop that ends it
#   ending/   there while it is being ended; ended: "gone", or who survived
#   log, log.1
#   watched   written, in its place, by who minds the lease: where nobody can write, it is not renewed

exec 2> /dev/null
trap '' HUP
umask 077
unset CDPATH ENV
for gglib_name in $(env | sed -n 's/^\(GGLIB_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$gglib_name"; done

gglib_hello() { # DATA_DIR SITE LINE: says who the machine is, or what it lacks; ends an old line
  [ -r /proc/self/stat ] || { echo 'lacks /proc'; return; }
  read -r GGLIB_BOOT < /proc/sys/kernel/random/boot_id
  GGLIB_BOOT_TIME=$(sed -n 's/^btime //p' /proc/stat)
  [ -z "$3" ] || gglib_end_line "$3"
  case $1 in
    '') GGLIB_DATA=${XDG_DATA_HOME:-$HOME/.local/share}/gglib ;;
    '~/'*) GGLIB_DATA=$HOME/${1#'~/'} ;;
    *) GGLIB_DATA=$1 ;;
  esac
  GGLIB_SITE=$GGLIB_DATA/servers/$2
  # What runs is reached even where nothing can be written any more.
  said=$(mkdir -p "$GGLIB_SITE" 2>&1 && cd "$GGLIB_SITE" 2>&1) || {
    echo "data $said"
    return
  }
  cd "$GGLIB_DATA" || return
  GGLIB_DATA=$(pwd)
  GGLIB_SITE=$GGLIB_DATA/servers/$2
  GGLIB_SETSID=$(command -v setsid)
  if sleep 0.001; then GGLIB_NAP=0.02 GGLIB_NAPS_PER_S=50
  else GGLIB_NAP=1 GGLIB_NAPS_PER_S=1; fi
  # What they were to stop was on its way over lines that have ended.
  for each in "$GGLIB_SITE"/*/called-off; do [ ! -e "$each" ] || rm -rf "${each%/*}"; done
  echo "ready $(getconf CLK_TCK || echo 100) $(gglib_line) $GGLIB_DATA"
}

gglib_line() { # who carries this connection: BOOT_ID:PID:TICKS:PARENT:PARENT_TICKS
  gglib_stat $$ || return
  shell_ticks=$ticks parent=$ppid
  gglib_stat "$parent"
  echo "$GGLIB_BOOT:$$:$shell_ticks:$parent:$ticks"
}

gglib_end_line() ( # LINE: ends its shell and its sshd, which may not have noticed that it is cut
  IFS=:
  set -f
  set -- $1
  unset IFS
  [ "$1" = "$GGLIB_BOOT" ] || exit
  if gglib_lives "$2" "$3"; then kill -s KILL "$2"; fi
  # Of other servers than OpenSSH's it is not known that the parent serves one connection only.
  read -r name < "/proc/$4/comm"
  case $name in
    sshd | sshd-session) if gglib_lives "$4" "$5"; then kill -s TERM "$4"; fi ;;
  esac
)

gglib_stat() { # PID: sets state ppid group session threads ticks; fails where there is none
  read -r line < "/proc/$1/stat" || return 1
  # The name, in parentheses, may itself hold spaces and parentheses.
  set -- ${line##*') '}
  state=$1 ppid=$2 group=$3 session=$4 threads=${18} ticks=${20}
}

gglib_moves() { # whether what gglib_stat found is no corpse
  # A leader's thread may end before the others: until they have, it holds memory and sockets.
  case $state in X) return 1 ;; Z) [ "$threads" -gt 1 ] ;; esac
}

gglib_lives() { # PID TICKS: whether that very process lives; a zombie does not
  gglib_stat "$1" && [ "$ticks" = "$2" ] && gglib_moves
}

gglib_identify() { # FOLDER: sets boot pid born boot_time; fails where nothing was started
  read -r boot pid born boot_time < "$1/identity"
}

gglib_alive() { # FOLDER: whether its server runs
  gglib_identify "$1" && [ "$boot" = "$GGLIB_BOOT" ] && gglib_lives "$pid" "$born"
}

gglib_say_state() { # FOLDER
  if gglib_alive "$1"; then echo "running $pid $born $boot_time"
  elif gglib_identify "$1"; then
    status=
    read -r status < "$1/status"
    echo "ended $pid $born $boot_time $status"
  else echo unknown; fi
}

gglib_state() { # ID
  gglib_say_state "$GGLIB_SITE/$1"
}

gglib_living() { # ID...: those of them that run
  for each in "$@"; do ! gglib_alive "$GGLIB_SITE/$each" || echo "$each"; done
}

gglib_list() { # every server on record: a line of its state, a line of its handle
  for folder in "$GGLIB_SITE"/*/; do
    folder=${folder%/}
    read -r handle < "$folder/handle" || continue
    printf '%s ' "${folder##*/}"
    gglib_say_state "$folder"
    printf '%s\n' "$handle"
  done
}

gglib_listeners() { # sets listeners to " PORT_IN_HEX:INODE " of all that answers on the loopback
  listeners=' '
  for table in /proc/net/tcp /proc/net/tcp6; do
    [ -r "$table" ] || continue
    while read -r _ address _ kind _ _ _ _ _ inode _; do
      case $kind in
        st) continue ;;
        0A) ;;
        *) break ;; # listeners come first
      esac
      case ${address%:*} in
        0100007F | 00000000 | 00000000000000000000000000000000 | 0000000000000000FFFF00000100007F)
          listeners="$listeners${address#*:}:$inode " ;;
      esac
    done < "$table"
  done
}

gglib_promised() { # [FOLDER]: sets promised to " PORT " of every other server there that runs
  promised=' '
  for there in "$GGLIB_DATA"/servers/*/*/; do
    there=${there%/}
    [ "$there" != "$1" ] || continue
    read -r port_there < "$there/port" || continue
    read -r _ started_in < "$there/nonce"
    if gglib_alive "$there" || { [ ! -e "$there/identity" ] && [ "$started_in" = "$GGLIB_BOOT" ]; }
    then promised="$promised$port_there "; fi
  done
}

gglib_is_taken() { # PORT: after gglib_listeners and gglib_promised
  case $promised in *" $1 "*) return 0 ;; esac
  case $listeners in *" $(printf %04X "$1"):"*) return 0 ;; esac
  return 1
}

gglib_taken() ( # PORT: whether somebody listens there
  gglib_listeners
  promised=' '
  if gglib_is_taken "$1"; then echo yes; else echo no; fi
)

gglib_free_port() ( # BASE: the first from there on that nobody has
  gglib_listeners
  gglib_promised
  port=$1
  while [ "$port" -le 65535 ]; do
    gglib_is_taken "$port" || { echo "$port"; exit; }
    port=$((port + 1))
  done
  echo none
)

gglib_sockets_of() { # PID: its open files, one a line
  ls -l "/proc/$1/fd"
}

gglib_holder() ( # ID PORT: "own", or who else answers on the port
  gglib_alive "$GGLIB_SITE/$1" || { echo gone; exit; }
  gglib_listeners
  wanted=$(printf %04X "$2")
  inodes=
  for each in $listeners; do
    case $each in "$wanted":*) inodes="$inodes ${each#*:}" ;; esac
  done
  [ -n "$inodes" ] || { echo nobody; exit; }
  sockets=$(gglib_sockets_of "$pid")
  foreign=
  for inode in $inodes; do
    case $sockets in *"socket:[$inode]"*) ;; *) foreign="$foreign $inode" ;; esac
  done
  [ -n "$foreign" ] || { echo own; exit; }
  gglib_family "$1" "$pid" "$born"
  for member in $family; do sockets="$sockets $(gglib_sockets_of "${member%:*}")"; done
  for inode in $foreign; do
    case $sockets in *"socket:[$inode]"*) continue ;; esac
    for other in /proc/[0-9]*; do
      case $(gglib_sockets_of "${other#/proc/}") in
        *"socket:[$inode]"*)
          read -r name < "$other/comm"
          echo "other $name (pid ${other#/proc/})"
          exit ;;
      esac
    done
    echo 'other a process of another user'
    exit
  done
  echo own
)

gglib_family() { # ID PID TICKS: sets family to "PID:TICKS ..." of all that lives of the server
  family=' '
  rest=
  bearers=" $(cd /proc && grep -lsF "GGLIB_SERVER_ID=$1" [0-9]*/environ | tr '\n' ' ')"
  leader=$2 first=$3 its_session=$2
  # A pid is not used again while its session has members; once it has none, it may be.
  if gglib_stat "$leader" && [ "$ticks" != "$first" ]; then its_session=none; fi
  for entry in /proc/[0-9]*; do
    each=${entry#/proc/}
    gglib_stat "$each" && [ "$ticks" -ge "$first" ] && gglib_moves || continue
    case $bearers in
      *" $each/environ "*) family="$family$each:$ticks " ;;
      *)
        if [ "$session" = "$its_session" ] || [ "$group" = "$its_session" ]; then
          family="$family$each:$ticks "
        else rest="$rest $each:$ticks:$ppid"; fi ;;
    esac
  done
  grown=yes
  while [ -n "$grown" ]; do
    grown=
    others=
    for each in $rest; do
      case $family in
        *" ${each##*:}:"*) family="$family${each%:*} " grown=yes ;;
        *) others="$others $each" ;;
      esac
    done
    rest=$others
  done
}

gglib_signal() { # NAME: to all of $family; the whole group at once, so that no fork slips through
  grouped=
  for each in $family; do
    gglib_lives "${each%:*}" "${each#*:}" || continue
    if [ "$group" = "$its_session" ]; then grouped=yes; else kill -s "$1" "${each%:*}"; fi
  done
  [ -z "$grouped" ] || kill -s "$1" -- "-$leader"
}

gglib_until_gone() { # NAPS: fails when one of $family lives after so many
  naps=$1
  for each in $family; do
    while gglib_lives "${each%:*}" "${each#*:}"; do
      [ "$naps" -gt 0 ] || return 1
      naps=$((naps - 1))
      sleep "$GGLIB_NAP"
    done
  done
}

gglib_kill_all() { # ID: sets family to who is left
  tries=$((5 * GGLIB_NAPS_PER_S))
  gglib_family "$1" "$pid" "$born"
  # Again, until a look finds nobody: what is killed may just have forked.
  while [ "$family" != ' ' ] && [ "$tries" -gt 0 ]; do
    gglib_signal KILL
    gglib_until_gone "$GGLIB_NAPS_PER_S"
    tries=$((tries - GGLIB_NAPS_PER_S))
    gglib_family "$1" "$pid" "$born"
  done
}

gglib_end() { # ID GRACE_NAPS: ends the identified server in the background of this machine
  gglib_family "$1" "$pid" "$born"
  if [ "$2" -gt 0 ]; then
    gglib_signal TERM
    gglib_until_gone "$2"
  fi
  gglib_kill_all "$1"
  naps=$GGLIB_NAPS_PER_S
  until [ -e "$GGLIB_SITE/$1/status" ] || [ "$naps" -le 0 ]; do
    naps=$((naps - 1))
    sleep "$GGLIB_NAP"
  done
  if [ "$family" = ' ' ]; then echo gone; else echo "survived$family"; fi > "$GGLIB_SITE/$1/ended.new"
  mv -f "$GGLIB_SITE/$1/ended.new" "$GGLIB_SITE/$1/ended"
  rm -rf "$GGLIB_SITE/$1/ending"
}

gglib_until_there() { # SECONDS FILE...: until one of them is
  naps=$(($1 * GGLIB_NAPS_PER_S))
  shift
  while [ "$naps" -gt 0 ]; do
    for each in "$@"; do [ ! -e "$each" ] || return 0; done
    naps=$((naps - 1))
    sleep "$GGLIB_NAP"
  done
}

gglib_discard() ( # ID NONCE: ends what became of a start that nobody heard the end of
  folder=$GGLIB_SITE/$1
  # One that has not begun finds this, and does not begin.
  if mkdir "$folder"; then
    echo "$2" > "$folder/called-off"
    echo not-running
    exit
  fi
  gglib_until_there 1 "$folder/nonce"
  known=
  read -r known _ < "$folder/nonce"
  [ "$known" != "$2" ] || gglib_until_there 5 "$folder/identity"
  [ "$known" = "$2" ] && gglib_alive "$folder" || { echo not-running; exit; }
  gglib_stop "$1" "$pid" 0 "$2"
)

gglib_is_ending() { # FOLDER: whether somebody is at it; who was cut off by a crash is not
  [ -d "$1/ending" ] || return 1
  read -r ender ender_born < "$1/ending/by" || return 0
  gglib_lives "$ender" "$ender_born"
}

gglib_stop() ( # ID PID GRACE_MS NONCE: has it ended, whatever becomes of this connection
  folder=$GGLIB_SITE/$1
  gglib_is_ending "$folder" || rm -rf "$folder/ending"
  naps=$(($3 * GGLIB_NAPS_PER_S / 1000))
  if [ "$3" -gt 0 ] && [ "$naps" -eq 0 ]; then naps=1; fi
  gglib_alive "$folder" && [ "$pid" = "$2" ] || {
    asked=
    read -r asked < "$folder/asked"
    # This very stop may have been asked for before the line was cut.
    if [ -d "$folder/ending" ] || [ "${asked:-none}" = "$4" ]; then echo ending
    else echo not-running; fi
    exit
  }
  if mkdir "$folder/ending"; then
    echo "$4" > "$folder/asked"
    rm -f "$folder/ended"
    (
      read -r ender _ < /proc/self/stat # the shell itself reads this: it forks for no built-in
      gglib_stat "$ender" && echo "$ender $ticks" > "$folder/ending/by"
      gglib_end "$1" "$naps"
    ) < /dev/null > /dev/null 2>&1 &
  elif ! gglib_is_ending "$folder"; then
    # Nothing can be written there: who is at it is told, and not on record.
    (gglib_end "$1" "$naps") < /dev/null > /dev/null 2>&1 &
    gglib_stat $! && echo "ending $!:$ticks"
    exit
  fi
  echo ending
)

gglib_ended() { # ID ENDER: how its ending went
  if gglib_is_ending "$GGLIB_SITE/$1"; then echo going
  elif [ -n "$2" ] && gglib_lives "${2%:*}" "${2#*:}"; then echo going
  elif [ -z "$2" ] && read -r said < "$GGLIB_SITE/$1/ended"; then echo "$said"
  elif gglib_alive "$GGLIB_SITE/$1"; then echo "survived $pid:$born"
  else echo gone; fi
}

gglib_lease() { # WORD: says that the gglib whose servers these are is there
  # In place: on a full disk, a file that was emptied first would stay empty.
  echo "$1" 1<> "$GGLIB_SITE/lease"
}

gglib_watch_lease() { # ID TTL_S: ends the server when nobody has renewed the lease for so long
  idle=0 last=
  step=$(($2 / 4))
  [ "$step" -gt 0 ] || step=1
  while gglib_alive "$GGLIB_SITE/$1"; do
    now=
    read -r now < "$GGLIB_SITE/lease"
    # While the disk takes nothing, as one that may only be read, its silence says nothing.
    if echo yes 1<> "$GGLIB_SITE/$1/watched" && [ "$now" = "$last" ]; then idle=$((idle + step))
    else idle=0 last=$now; fi
    if [ "$idle" -ge "$2" ] &&
      { mkdir "$GGLIB_SITE/$1/ending" || ! gglib_is_ending "$GGLIB_SITE/$1"; }; then
      gglib_end "$1" $((10 * GGLIB_NAPS_PER_S))
      return
    fi
    sleep "$step"
  done
}

gglib_run() { # ID TTL_S VARIABLES NAME=VALUE... ARGV...: the server's parent, for as long as it lives
  id=$1 ttl=$2 variables=$3 folder=$GGLIB_SITE/$1
  shift 3
  [ -n "$GGLIB_SETSID" ] || set -m
  (
    while [ "$variables" -gt 0 ]; do
      export "$1"
      shift
      variables=$((variables - 1))
    done
    exec $GGLIB_SETSID "$@"
  ) < /dev/null >> "$folder/log" 2>&1 &
  child=$!
  gglib_stat "$child"
  pid=$child born=$ticks
  # Its place on a full disk is taken while there is one.
  echo '   ' > "$folder/status.new"
  echo "$GGLIB_BOOT $pid $born $GGLIB_BOOT_TIME" > "$folder/identity.new" &&
    mv "$folder/identity.new" "$folder/identity" || {
    # What is not on record is never found again.
    gglib_kill_all "$id"
    echo "unwritable $folder: its record could not be finished"
    exec > /dev/null
    wait "$child"
    rm -rf "$folder"
    exit
  }
  echo "started $pid $born $GGLIB_BOOT_TIME"
  exec > /dev/null
  if [ "$ttl" -gt 0 ]; then gglib_watch_lease "$id" "$ttl" & fi
  wait "$child"
  printf '%-3s\n' $? 1<> "$folder/status.new"
  mv "$folder/status.new" "$folder/status"
  # Whatever it started has lost its purpose, and may hold its memory and port.
  [ -d "$folder/ending" ] || gglib_kill_all "$id"
}

gglib_has_room() { # FOLDER: whether a server's record can be kept there; sets said to why not
  # The shell's own words for a failed write leave out why.
  said=$({ printf '%065536d' 0 | cat > "$1/room"; } 2>&1) && set -- "$1" yes
  rm -f "$1/room"
  [ "$2" = yes ]
}

gglib_keeps() { # "yes", or why no server's record can be kept
  if gglib_has_room "$GGLIB_SITE"; then echo yes; else echo "$GGLIB_SITE: ${said##*: }"; fi
}

gglib_start() ( # ID NONCE PORT HANDLE DIRECTORY TTL_S VARIABLES NAME=VALUE... ARGV...
  id=$1 nonce=$2 port=$3 handle=$4 directory=$5 ttl=$6 variables=$7 folder=$GGLIB_SITE/$1
  shift 7
  if ! said=$(mkdir "$folder" 2>&1); then
    [ -d "$folder" ] || { echo "unwritable $said"; exit; }
    gglib_until_there 1 "$folder/nonce" "$folder/called-off"
    known=
    read -r known < "$folder/called-off"
    if [ "$known" = "$nonce" ]; then echo 'failed it was called off'; exit; fi
    read -r known _ < "$folder/nonce"
    if [ "$known" = "$nonce" ]; then # this very start was asked for before the line was cut
      gglib_until_there 5 "$folder/identity"
      if gglib_identify "$folder"; then echo "started $pid $born $boot_time"
      else echo 'failed its start was cut off'; fi
      exit
    fi
    if gglib_alive "$folder"; then echo "failed a server with this id runs already"; exit; fi
    rm -rf "$folder"
    said=$(mkdir "$folder" 2>&1) || { echo "unwritable $said"; exit; }
  fi
  gglib_has_room "$folder" && echo "$nonce $GGLIB_BOOT" > "$folder/nonce" &&
    echo "$port" > "$folder/port" && printf '%s\n' "$handle" > "$folder/handle" || {
    rm -rf "$folder"
    echo "unwritable $folder: ${said##*: }"
    exit
  }
  gglib_listeners
  gglib_promised "$folder"
  if gglib_is_taken "$port"; then rm -rf "$folder"; echo taken; exit; fi
  if ! said=$(cd -- "${directory:-$GGLIB_DATA}" 2>&1); then rm -rf "$folder"; echo "failed $said"; exit; fi
  cd -- "${directory:-$GGLIB_DATA}" || exit
  count=$variables word=
  for word in "$@"; do
    [ "$count" -gt 0 ] || break
    count=$((count - 1))
  done
  case $word in
    */*) [ -f "$word" ] && [ -x "$word" ] ;;
    *) command -v -- "$word" > /dev/null ;;
  esac || { rm -rf "$folder"; echo "no-program $word"; exit; }
  (
    exec < /dev/null
    gglib_run "$id" "$ttl" "$variables" "$@"
  ) &
)

gglib_begin() { # as gglib_start: the answer is whole when the server's process exists
  said=$(gglib_start "$@")
  echo "$said"
}

gglib_forget() { # ID...: what is left of ended servers
  for each in "$@"; do
    gglib_alive "$GGLIB_SITE/$each" || rm -rf "${GGLIB_SITE:?}/$each"
  done
}

gglib_read() { # ID FILE FROM: the state, the size, and what FILE holds from there on (or that many from its end)
  file=$GGLIB_SITE/$1/$2
  gglib_state "$1"
  [ -e "$file" ] || { echo '0 0'; return; }
  size=$(($(wc -c < "$file")))
  from=$3
  [ "$from" -ge 0 ] || from=$((size + from))
  [ "$from" -ge 0 ] || from=0
  [ "$from" -le "$size" ] || from=0
  echo "$size $from"
  tail -c "+$((from + 1))" "$file" | dd bs=65536 count=16
}

gglib_rotate() ( # MAX_BYTES: servers go on writing: they append
  for log in "$GGLIB_SITE"/*/log; do
    [ -e "$log" ] && [ "$(wc -c < "$log")" -gt "$1" ] || continue
    # On a full disk it goes on growing, as far as it can: what is half copied is in its way.
    tail -c "$1" "$log" > "$log.new" && mv "$log.new" "$log.1" && : > "$log" || rm -f "$log.new"
  done
)

gglib_listening_ports() ( # some ports that somebody listens on, sshd's first
  gglib_listeners
  # From what sshd says of this connection: CLIENT PORT SERVER PORT.
  echo "${SSH_CONNECTION##* }"
  count=0
  for each in $listeners; do
    echo "$((0x${each%:*}))"
    count=$((count + 1))
    [ "$count" -lt 8 ] || exit 0
  done
)

gglib_exists() { # PATH
  if [ -e "$1" ]; then echo yes; else echo no; fi
}

gglib_find_program() { # NAME OR PATH: where it is, with what tells whether it has changed
  case $1 in
    '~/'*) found=$HOME/${1#'~/'} ;;
    */*) found=$1 ;;
    *) found=$(command -v -- "$1") || found= ;;
  esac
  [ -n "$found" ] && [ -f "$found" ] && [ -x "$found" ] || { echo none; return; }
  echo "$found"
  ls -lnL "$found"
}

gglib_ask_program() { # PATH FLAG: what it says, on either stream
  "$1" "$2" < /dev/null 2>&1 | dd bs=65536 count=16
}
