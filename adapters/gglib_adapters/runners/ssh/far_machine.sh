# What the far machine has: memory, and files of models. Read after far.sh, which it goes on.

gglib_limits() { # GROUP USED_FILE PREFIX LIMIT_FILE...: "limit BYTES USED" for each that is set
  folder=$1 used_file=$2 prefix=$3
  shift 3
  used=0
  read -r used < "$folder/$used_file"
  while read -r key value; do
    case $key in
      "${prefix}inactive_file" | "${prefix}active_file") used=$((used - value)) ;;
    esac
  done < "$folder/memory.stat"
  for file in "$@"; do
    limit=
    read -r limit < "$folder/$file"
    case $limit in '' | *[!0-9]*) ;; *) echo "limit $limit $used" ;; esac
  done
}

gglib_devices() ( # who it is, its memory, every limit on what is started here, and its NVIDIA GPUs
  echo "boot $GGLIB_BOOT"
  sed -n 's/^\(Mem[TA][a-z]*\): *\([0-9]*\) kB$/\1 \2/p' /proc/meminfo
  while IFS=: read -r number controllers place; do
    root=/sys/fs/cgroup
    case $number:$controllers in
      0:) ;;
      *) case ,$controllers, in *,memory,*) root=/sys/fs/cgroup/memory ;; *) continue ;; esac ;;
    esac
    [ -d "$root$place" ] || place=
    while :; do
      case $controllers in
        '') gglib_limits "$root$place" memory.current '' memory.max memory.high ;;
        *) gglib_limits "$root$place" memory.usage_in_bytes total_ memory.limit_in_bytes ;;
      esac
      [ -n "${place%/}" ] || break
      place=${place%/*}
    done
  done < /proc/self/cgroup
  [ -z "${CUDA_VISIBLE_DEVICES+set}" ] || printf 'visible %s\n' "$CUDA_VISIBLE_DEVICES"
  gglib_ask_driver --query-gpu=index,uuid,mig.mode.current,memory.total,memory.free,name |
    head -n 64 | sed 's/^/gpu /'
)

gglib_ask_driver() { # QUERY: what NVIDIA's driver says to it, if there is one
  command -v nvidia-smi > /dev/null || return
  # A driver that hangs must not hold up the other questions.
  limited=
  if command -v timeout > /dev/null; then limited='timeout 5'; fi
  $limited nvidia-smi --format=csv,noheader,nounits "$1" < /dev/null
}

gglib_resident() { # PID: sets resident and own to its KiB, own being what no file backs
  resident=0 own=0
  while read -r key kib _; do
    case $key in
      VmRSS:) resident=$kib ;;
      RssAnon: | RssShmem:) own=$((own + kib)) ;;
    esac
  done < "/proc/$1/status"
}

gglib_share() { # PID: sets share and own_share to its KiB, of what is shared its part
  share= own_share=0
  while read -r key kib _; do
    case $key in
      Pss:) share=$kib ;;
      Pss_Anon: | Pss_Shmem:) own_share=$((own_share + kib)) ;;
    esac
  done < "/proc/$1/smaps_rollup"
  [ -n "$share" ] || share=$resident own_share=$own
}

gglib_memory() ( # "server ID RESIDENT_KIB OWN_KIB PID..." of each that runs; what they have of GPUs
  any=
  for folder in "$GGLIB_SITE"/*/; do
    folder=${folder%/}
    gglib_alive "$folder" || continue
    any=yes
    gglib_family "${folder##*/}" "$pid" "$born"
    set -- $family
    largest=0 largest_own=0 shares=0 own_shares=0 pids=
    for each in "$@"; do
      pids="$pids ${each%:*}"
      gglib_resident "${each%:*}"
      [ "$resident" -le "$largest" ] || largest=$resident
      [ "$own" -le "$largest_own" ] || largest_own=$own
      [ $# -gt 1 ] || break # to add up shares, the kernel walks through all pages
      gglib_share "${each%:*}"
      shares=$((shares + share)) own_shares=$((own_shares + own_share))
    done
    # Shares leave out what other servers have, too; the largest counts it.
    [ "$shares" -ge "$largest" ] || shares=$largest
    [ "$own_shares" -ge "$largest_own" ] || own_shares=$largest_own
    echo "server ${folder##*/} $shares $own_shares$pids"
  done
  [ -z "$any" ] || gglib_ask_driver --query-compute-apps=pid,gpu_uuid,used_memory |
    head -n 256 | sed 's/^/app /'
)

gglib_place() { # PATH: sets place to the absolute path; what is relative begins at home
  case $1 in
    '~') place=$HOME ;;
    '~/'*) place=$HOME/${1#'~/'} ;;
    /*) place=$1 ;;
    *) place=$HOME/$1 ;;
  esac
}

gglib_marks() ( # PATH...: of each a line: "SIZE SECONDS PATH", or what is wrong with it
  for each in "$@"; do
    gglib_place "$each"
    if [ -d "$place" ]; then echo directory
    elif [ ! -e "$place" ]; then echo missing
    elif [ ! -f "$place" ]; then echo special
    elif [ ! -r "$place" ]; then echo closed
    else stat -L -c "%s %Y %n" -- "$place" || echo missing; fi
  done
)

gglib_piece() ( # PATH BLOCK COUNT: "SIZE SECONDS", and so many blocks of 64 KiB from that one on
  stat -L -c '%s %Y' -- "$1" || { echo missing; exit; }
  dd if="$1" bs=65536 skip="$2" count="$3"
)

gglib_heads() ( # PATH...: of each the first 4096 bytes, filled up with zeros
  for each in "$@"; do
    { [ ! -f "$each" ] || head -c 4096 < "$each"; head -c 4096 /dev/zero; } | head -c 4096
  done
)

gglib_models() ( # FOLDER MOST: the model files in it and below, what could not be read, the folder
  gglib_place "$1"
  [ -e "$place" ] || { echo missing; exit; }
  [ -d "$place" ] || { echo file; exit; }
  cd -- "$place" && place=$(pwd) && [ -r "$place" ] || { echo closed; exit; }
  echo "folder $place"
  {
    said=$(find -L "$place" -type f -name '*.[gG][gG][uU][fF]' ! -path '*
*' -exec stat -L -c 'file %s %Y %d:%i %n' {} + 2>&1 >&3 3>&-)
    [ -z "$said" ] || printf '%s\n' "$said" | sed 's/^/left /'
  } 3>&1 | head -n "$2"
)
