# shellcheck shell=bash
# ./dev demo: one room, one clinic, one broker, under one temporary folder R, on loopback ports that were free.
#
#   room (plays a recording in real time) ─▶ FIFO ─▶ ALSA ─▶ roomscribe ─▶ roomscribe-sync ─▶ mosquitto ─▶ roomscribe-clinic
#
# Nothing here is scripted but the microphone.

clinic_id=demo
box_id=room-1
# Seconds for a program to be ready, and for the clinic to have the record after the session's end.
ready_within=60
record_within=180
# Bytes that wait while the recorder is kept from reading: half a second, as a sound card's driver would hold.
microphone_pipe=16384

demo() {
    local recording=
    keep=no
    while [ $# -gt 0 ]; do
        case $1 in
        --keep) keep=yes ;;
        --file)
            [ $# -ge 2 ] || wrong_usage "--file needs a file"
            recording=$(cd "$came_from" && readlink -f "$2")
            [ -f "$recording" ] || die "there is no file $2"
            shift
            ;;
        *) wrong_usage "demo has no option '$1'" ;;
        esac
        shift
    done
    set_up "${packages_build[@]}" "${packages_demo[@]}"
    step "Build" build_release
    PATH=$target/release:$PATH

    R=$(mktemp -d "${TMPDIR:-/tmp}/roomscribe.XXXXXX")
    names=()
    pids=()
    outcome=failed
    trap 'demo_ends' EXIT
    trap 'outcome=stopped; exit 130' INT TERM
    mkdir "$R/log"
    export ROOMSCRIBE_ROOT=$R

    step "Recording" choose_recording "$recording"
    step "Clinic, and what its broker needs" make_clinic
    step "Models" fill_models
    step "Broker, clinic, sync, microphone, box" start_everything
    step "Session" hold_session
    step "Clinic's acknowledgement" await_clinic
    show_result
    outcome=good
}

build_release() {
    cargo build --release --locked --workspace || die "the build failed (cargo's words are above)."
}

# Sets wav: 16 kHz, mono, 16 bits, converted if it must be and can be.
choose_recording() {
    wav=${1:-$target/audio/conversation-30s.wav}
    if python3 - "$wav" 2>/dev/null <<'END'; then
import sys, wave
w = wave.open(sys.argv[1])
sys.exit((w.getframerate(), w.getnchannels(), w.getsampwidth()) != (16000, 1, 2))
END
        say "   $wav"
        return
    fi
    if command -v ffmpeg >/dev/null; then
        ffmpeg -nostdin -loglevel error -i "$wav" -ar 16000 -ac 1 -sample_fmt s16 "$R/recording.wav"
    elif command -v sox >/dev/null; then
        sox "$wav" -r 16000 -c 1 -b 16 "$R/recording.wav"
    else
        die "$wav is not 16 kHz, mono, 16 bit WAV, and neither ffmpeg nor sox is here to convert it." \
            "Install one (apt-get install sox), or give a file of that kind. For the box itself any WAV, FLAC, MP3 or" \
            "Ogg will do: roomscribe process FILE"
    fi
    say "   $wav, converted"
    wav=$R/recording.wav
}

free_ports() {
    python3 - <<'END'
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(s.getsockname()[1] for s in held))
END
}

make_clinic() {
    local name
    read -r broker_port dashboards_port http_port https_port <<<"$(free_ports)"
    roomscribe-clinic init --root "$R" --clinic "$clinic_id" --broker "localhost:$broker_port" \
        --listen "127.0.0.1:$http_port" --https "127.0.0.1:$https_port" --name localhost >&2
    roomscribe-clinic broker-files --root "$R" --to "$R/mosquitto" --installed "$R/mosquitto" >>"$R/log/clinic.log"
    token=$(roomscribe-clinic token add demo --role admin --root "$R")
    # For people, where everything is left running.
    password=$(python3 -c 'import secrets; print(secrets.token_hex(8))')
    for name in clinician admin; do
        printf '%s\n' "$password" | roomscribe-clinic user add "$name" --role "$name" --root "$R" >>"$R/log/clinic.log"
    done
}

# By a one-time code, as a technician would: from a running clinic server, over HTTPS.
enrol() {
    local code
    code=$(roomscribe-clinic invite "$box_id" --root "$R" | head -n 1)
    roomscribe-sync enrol --root "$R" --code "$code" --clinic "localhost:$https_port" >&2
}

fill_models() {
    local folder from=()
    for folder in "${model_folders[@]}"; do from+=(--from "$folder"); done
    # What no folder has is downloaded where there is a network; without one, that fails at once and says so.
    roomscribe models fetch --root "$R" "${from[@]}" --network >&2
}

# The shipped files, with what they have for dashboards switched on.
write_broker_config() {
    (umask 077 && mosquitto_passwd -b -c "$R/mosquitto/dashboard.passwd" dashboard demo)
    sed -i "s/^#\([^ ]\)/\1/; s/^listener 8884/listener $dashboards_port 127.0.0.1/; s/^listener $broker_port/& 127.0.0.1/" \
        "$R/mosquitto/roomscribe.conf"
    printf '%s\n' "user $(id -un)" "persistence false" "include_dir $R/mosquitto" >"$R/mosquitto.conf"
}

# board TOPIC: what is retained on the clinic's board, as a dashboard reads it.
board() {
    mosquitto_sub -h localhost -p "$dashboards_port" --cafile "$R/mosquitto/authority.pem" -u dashboard -P demo -C 1 -W 5 \
        -t "roomscribe/v1/$clinic_id/board/$1"
}

# A microphone without a sound card: what is written into the FIFO is what ALSA hears.
write_sound_config() {
    mkfifo "$R/microphone.fifo"
    cat >"$R/asound.conf" <<END
pcm.roomscribe_demo {
    type file
    slave.pcm { type null }
    file "/dev/null"
    infile "$R/microphone.fifo"
    format raw
}
END
}

# start NAME COMMAND…: in a session of its own, so that Ctrl-C reaches only this script, which then ends them in order.
start() {
    local name=$1
    shift
    setsid "$@" </dev/null >>"$R/log/$name.log" 2>&1 &
    names+=("$name")
    pids+=($!)
}

# start_kept NAME COMMAND…: started again two seconds after it fails, as its unit does. Kill the box with -9 during the
# session and see. The loop is a file of its own, so that its command line is not mistaken for the program's.
start_kept() {
    local name=$1 keeper=$R/keep-${1#roomscribe-}
    shift
    {
        printf 'until %s\n' "$(printf '%q ' "$@")"
        printf 'do echo "-- ended with code $?; starting again in 2 s"; sleep 2; done\n'
    } >"$keeper"
    start "$name" bash "$keeper"
}

# await NAME COMMAND…: until the command succeeds; fails early if the program has ended.
await() {
    local name=$1 pid=${pids[-1]} began=$SECONDS
    shift
    until "$@" >/dev/null 2>&1; do
        kill -0 "$pid" 2>/dev/null || die "$name has ended; its log is below."
        [ $((SECONDS - began)) -lt "$ready_within" ] || die "$name was not ready within $ready_within s (asked: $*)."
        sleep 0.2
    done
    say "   $name is ready"
}

box_is_online() {
    curl --silent --fail --header "Authorization: Bearer $token" "http://127.0.0.1:$http_port/api/v1/boxes" |
        grep -q '"online":true'
}

start_everything() {
    write_broker_config
    write_sound_config
    start mosquitto mosquitto -c "$R/mosquitto.conf"
    await mosquitto mosquitto_pub -h localhost -p "$dashboards_port" --cafile "$R/mosquitto/authority.pem" \
        -u dashboard -P demo -t ready -n
    start_kept roomscribe-clinic roomscribe-clinic run --root "$R"
    await roomscribe-clinic board status/server-1
    step "Enrolment by a one-time code" enrol
    start_kept roomscribe-sync roomscribe-sync run --root "$R"
    await roomscribe-sync box_is_online
    # Silence until there is a cue, so that the box finds a microphone that works. Its progress belongs on the screen.
    setsid room play "$wav" "$R/microphone.fifo" --cue "$R/cue" --done "$R/played" --hold --progress \
        --pipe "$microphone_pipe" </dev/null >"$R/log/room.log" &
    names+=(room)
    pids+=($!)
    start_kept roomscribe env ALSA_CONFIG_PATH="$R/asound.conf" ROOMSCRIBE_CAPTURE_DEVICE=roomscribe_demo \
        roomscribe run --root "$R"
    await roomscribe roomscribe status --root "$R" --json
}

hold_session() {
    local answer began=$SECONDS length
    answer=$(roomscribe start --root "$R" --consent verbal --json)
    session=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["session_id"])' <<<"$answer") ||
        die "roomscribe start did not answer with a session_id: $answer"
    say "   session $session"
    length=$(($(stat -c %s "$wav") / 32000))
    touch "$R/cue"
    until [ -e "$R/played" ]; do
        all_alive
        [ $((SECONDS - began)) -lt $((length + ready_within)) ] || die "the recording of $length s was not played in time."
        sleep 0.2
    done
    sleep 0.5
    # A box that was killed is back in a few seconds.
    until roomscribe stop --root "$R" >&2; do
        [ $((SECONDS - began)) -lt $((length + ready_within)) ] || die "the session could not be ended."
        sleep 1
    done
}

all_alive() {
    local i
    for i in "${!pids[@]}"; do
        kill -0 "${pids[i]}" 2>/dev/null || die "${names[i]} has ended; its log is below."
    done
}

# session_field NAME…: of this session in a list of sessions (JSON, whatever wraps it), the first field that is there.
session_field() {
    python3 -c '
import json, sys
session, *fields = sys.argv[1:]
def find(value):
    if isinstance(value, dict):
        if session in (value.get("session_id"), value.get("session"), value.get("id")):
            return value
        value = list(value.values())
    if isinstance(value, list):
        return next((found for found in map(find, value) if found), None)
lines = sys.stdin.read()
try:
    found = find(json.loads(lines))
except ValueError:
    found = find([json.loads(line) for line in lines.splitlines() if line.startswith("{")])
print(next((found[f] for f in fields if found and found.get(f)), "-"))
' "$session" "$@"
}

at_clinic() { roomscribe-clinic sessions --root "$R" --json 2>>"$R/log/poll.log" | session_field status 2>>"$R/log/poll.log" || echo -; }
in_room() { roomscribe sessions --root "$R" --json 2>>"$R/log/poll.log" | session_field "$@" 2>>"$R/log/poll.log" || echo -; }

# Until the clinic has the record and the box believes it.
await_clinic() {
    local began=$SECONDS seen='' now
    while :; do
        now="box: $(in_room status), delivery: $(in_room delivery), clinic: $(at_clinic)"
        [ "$now" = "$seen" ] || say "   $((SECONDS - began)) s  $now"
        seen=$now
        case $now in
        *"delivery: acknowledged, clinic: done") return ;;
        *"delivery: acknowledged, clinic: failed") die "the session reached the clinic, but as failed." ;;
        *"delivery: refused"*) die "the clinic refused the record." ;;
        esac
        all_alive
        [ $((SECONDS - began)) -lt "$record_within" ] ||
            die "the clinic did not have the session after $record_within s."
        sleep 1
    done
}

show_result() {
    say "-- What the clinic holds"
    roomscribe-clinic show "$session" --root "$R"
    say "-- The breaker health, read back from MQTT"
    board breakers ||
        die "nothing is retained on roomscribe/v1/$clinic_id/board/breakers."
    say "-- Where to look next"
    if [ "$keep" = yes ]; then
        where_to_look
    else
        say "   ./dev demo --keep leaves all of it running and says where the dashboard, the sockets and the logs are."
    fi
}

where_to_look() {
    cat >&2 <<END
   dashboard      http://127.0.0.1:$http_port/ (log in as clinician, who may read, or admin; password $password)
   logs           $R/log/
   box's health   curl --unix-socket $R/run/roomscribe/control.sock http://box/health/audio-processing
   the board      mosquitto_sub -h localhost -p $dashboards_port --cafile $R/mosquitto/authority.pem \\
                    -u dashboard -P demo -v -t 'roomscribe/v1/$clinic_id/board/#'
   the box        export ROOMSCRIBE_ROOT=$R PATH=$target/release:\$PATH
                  roomscribe status; roomscribe sessions
                  roomscribe breaker force-open transcription (the dashboard and MQTT show it within 2 s), then
                  roomscribe breaker reset transcription
   stop it        sh $R/stop
END
}

# Everything is ended, the last one started first, and the folder goes; after a failure it stays.
demo_ends() {
    local i
    trap - EXIT INT TERM
    if [ "$outcome" = good ] && [ "$keep" = yes ]; then
        {
            echo "kill -- ${pids[*]/#/-}"
            echo "sleep 3"
            echo "rm -rf '$R'"
        } >"$R/stop"
        return
    fi
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do end_program "${pids[i]}" "${names[i]}"; done
    if [ "$outcome" = failed ]; then
        for i in "${names[@]}"; do
            say "-- the end of $R/log/$i.log"
            tail -n 15 "$R/log/$i.log" >&2 || true
        done
        say "dev: the demo failed. Everything it wrote is still in $R"
    else
        rm -rf "$R"
    fi
}

# Each program leads a process group of its own, with whatever it has started.
end_program() {
    local pid=$1 tries
    kill -- "-$pid" 2>/dev/null || return 0
    for ((tries = 0; tries < 100; tries++)); do
        kill -0 -- "-$pid" 2>/dev/null || return 0
        sleep 0.1
    done
    say "   $2 did not end within 10 s; killed"
    kill -KILL -- "-$pid" 2>/dev/null || true
}
