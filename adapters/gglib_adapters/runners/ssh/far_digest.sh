# SHA-256 of files on the far machine, computed there. Read after far.sh, which it goes on.
#
# $GGLIB_DATA/digests/BOOT_ID/KEY is one computation, until it is forgotten:
#   by      "PID START_TICKS" of what reads the file
#   asked   another word each time that somebody asks for it: when nobody does, it ends
#   said    what the tool prints; status: its exit status, once it has ended

gglib_digest() ( # KEY PATIENCE_S PATH: has it computed in the background of this machine
  digests=$GGLIB_DATA/digests/$GGLIB_BOOT folder=$GGLIB_DATA/digests/$GGLIB_BOOT/$1
  patience=$2 file=$3
  for each in "$GGLIB_DATA"/digests/*; do # what was cut off when the machine went down
    # A home may be shared: what is of today may be another machine's, and at work.
    [ "$each" = "$digests" ] || [ -z "$(find "$each" -prune -mtime +0)" ] || rm -rf "$each"
  done
  if [ -d "$folder" ]; then echo going; exit; fi # asked for before the line was cut
  if command -v sha256sum > /dev/null; then set -- sha256sum
  elif command -v shasum > /dev/null; then set -- shasum -a 256
  elif command -v openssl > /dev/null; then set -- openssl dgst -sha256
  else echo no-tool; exit; fi
  said=$(mkdir -p "$folder" 2>&1) || { echo "failed $said"; exit; }
  # In a shell of its own: a function would keep the output open, for when it is done.
  (gglib_compute "$folder" "$patience" "$file" "$@") < /dev/null > /dev/null 2>&1 &
  echo going
)

gglib_compute() { # FOLDER PATIENCE_S FILE TOOL...
  folder=$1 patience=$2 file=$3
  shift 3
  (exec "$@" < "$file" > "$folder/said") &
  child=$!
  gglib_stat "$child" || ticks=0
  echo "$child $ticks" > "$folder/by"
  gglib_mind_digest "$folder" "$patience" "$child" "$ticks" &
  wait "$child"
  echo $? > "$folder/status.new"
  mv "$folder/status.new" "$folder/status"
}

gglib_mind_digest() { # FOLDER PATIENCE_S PID START_TICKS: ends it when nobody wants it any more
  idle=0 last=
  step=$(($2 / 12))
  [ "$step" -gt 0 ] || step=1
  while [ -d "$1" ] && [ "$idle" -lt "$2" ]; do
    now=
    read -r now < "$1/asked"
    if [ "$now" = "$last" ]; then idle=$((idle + step)); else idle=0 last=$now; fi
    sleep "$step"
  done
  ! gglib_lives "$3" "$4" || kill "$3"
  gglib_clear_digest "$1"
}

gglib_clear_digest() { # FOLDER: first out of the way of who may just be writing to it
  mv "$1" "$1.gone" && rm -rf "$1.gone"
}

gglib_digest_state() ( # KEY WORD: "going BYTES", "ended STATUS WHAT_IT_SAID" or "unknown"
  folder=$GGLIB_DATA/digests/$GGLIB_BOOT/$1
  [ -d "$folder" ] || { echo unknown; exit; }
  echo "$2" > "$folder/asked"
  if read -r status < "$folder/status"; then
    said=
    read -r said < "$folder/said"
    echo "ended $status $said"
    exit
  fi
  position=
  # How far it has come in its standard input, which is the file.
  read -r child _ < "$folder/by" && read -r _ position < "/proc/$child/fdinfo/0"
  echo "going ${position:-0}"
)

gglib_forget_digest() ( # KEY: ends it if it goes on, and leaves nothing of it
  folder=$GGLIB_DATA/digests/$GGLIB_BOOT/$1
  read -r child born < "$folder/by" && gglib_lives "$child" "$born" && kill "$child"
  gglib_clear_digest "$folder"
)
