# Runs cells of bash. `channel.py`, `limiting.py`, `commands.py` and `leading.py` stand in front.
#
# One bash lives on and sources each cell, so variables, functions and the working folder stay. It saves
# its state after every cell and when it exits; a cell that ends it (`exit 3`, `set -e`, an interrupt) is
# followed by a new bash that starts from what was saved.

import hashlib

CHANGES_BY_ITSELF = re.compile(
    r"^declare -\S+ (_|E?UID|GROUPS|BASH\w*|COLUMNS|COMP_\w+|DIRSTACK|EPOCH\w+|FUNCNAME|HISTCMD"
    r"|LINENO|LINES|OLDPWD|PIPESTATUS|PPID|RANDOM|SECONDS|SHELLOPTS|SHLVL|SRANDOM|__kowalski\w*"
    # Where things lie differs from one sandbox to the next.
    r"|PATH|HOME|TMPDIR|KOWALSKI_ASK)(=|$)"
)

LOOP = r"""
history() { folded_history "$@"; }
FINAL_VAR() {
  declare -p -- "$1" >/dev/null 2>&1 || { echo "there is no variable $1" >&2; return 1; }
  local -n __kowalski_named=$1
  FINAL "${__kowalski_named[*]}"
}
SHOW_VARS() {
  local __kowalski_line
  declare -p | while IFS= read -r __kowalski_line; do
    [[ $__kowalski_line =~ ^declare\ -[^\ ]+\ ([A-Za-z0-9_]+) ]] || continue
    [[ :$__kowalski_known: == *:${BASH_REMATCH[1]}:* || ${BASH_REMATCH[1]} == __kowalski* ]] && continue
    printf '%s\n' "${__kowalski_line#declare }"
  done
}
__kowalski_save() {
  [ -z "${answer+x}" ] || printf '%s' "$answer" > "$__kowalski_state.answer"
  if [ -n "${answer_ready-}" ]; then : > "$__kowalski_state.ready"
  elif [ -e "$__kowalski_state.ready" ]; then rm -f "$__kowalski_state.ready"; fi
  { declare -p; } > "$__kowalski_state.variables" 2>/dev/null
  { declare -f; alias -p; shopt -p; set +o; printf 'cd -- %q\n' "$PWD"; } > "$__kowalski_state.rest" 2>/dev/null
  return 0
}
__kowalski_state=$1 __kowalski_in=$2 __kowalski_status=$3
exec {__kowalski_1}>&1 {__kowalski_2}>&2
set --
__kowalski_known=$(compgen -v | tr '\n' ':'):_:PIPESTATUS:BASH_REMATCH:FUNCNAME:CONTEXT:OLDPWD
for __kowalski_part in opening variables rest; do
  [ -e "$__kowalski_state.$__kowalski_part" ] && source "$__kowalski_state.$__kowalski_part" 2>/dev/null
done
while IFS= read -r __kowalski_cell <&"$__kowalski_in"; do
  [ ! -e "$__kowalski_cell.arguments" ] || source "$__kowalski_cell.arguments"
  trap __kowalski_save EXIT
  # The interrupt comes again and again: only the first may be heard, the others would end the saving.
  trap 'trap "" INT; exit 130' INT
  source "$__kowalski_cell"
  __kowalski_code=$?
  exec 1>&"$__kowalski_1" 2>&"$__kowalski_2"
  __kowalski_save
  printf '%s\n' "$__kowalski_code" >&"$__kowalski_status"
done
"""


class Bash(Led):
    def __init__(self, channel):
        super().__init__(channel)
        self._state = os.path.join(self.folder, "state")

    VERSION = ("bash", "--norc", "-c", 'printf %s "${BASH_VERSION%%(*}"')

    def argv(self):
        return ["bash", "--noprofile", "--norc", "-c", LOOP, "bash", self._state]

    def open(self, message):
        inputs = message["inputs"]
        with open(f"{self._state}.opening", "w") as file:
            file.write(f"RANDOM={message['seed'] % 32768}\n")
            if len(inputs) == 1:
                file.write(f"export CONTEXT={quoted(*inputs.values())}\n")
        self.start()

    def order_of(self, path, message):
        if "arguments" in message:
            with open(f"{path}.arguments", "w") as file:
                file.write("set -- " + " ".join(map(quoted, message["arguments"])) + "\n")
        return path

    def outcome(self, code):
        done = {"exit_code": code & 0xFF, "digest": self._digest(), **self._answer()}
        if code:
            done.update(status="error", error=f"exit code {code}")
        return done

    def lost(self, code):
        self.start()
        done = {"status": "error", "exit_code": code & 0xFF, "digest": self._digest()}
        done.update(self._answer())
        done["error"] = f"the cell ended with exit {code}; the session goes on"
        if self.is_interrupted:
            done.update(status="interrupted", error="interrupted")
        return done

    def _answer(self):
        """The variables `answer` and `answer_ready`, unless FINAL was called."""
        if final := self.commands.answer():
            return final
        try:
            with open(f"{self._state}.answer", encoding="utf-8", errors="replace") as file:
                content = cut(file.read(), ANSWER_CHARS_MAX)
        except OSError:
            return {}
        is_ready = os.path.exists(f"{self._state}.ready")
        return {"answer_content": content, "answer_is_ready": is_ready}

    def _digest(self):
        """SHA-256 over the variables, but for those that change by themselves."""
        digest = hashlib.sha256()
        try:
            with open(f"{self._state}.variables", "rb") as file:
                for line in file.read().decode("utf-8", "replace").splitlines():
                    if not CHANGES_BY_ITSELF.match(line):
                        digest.update(line.encode("utf-8", "replace") + b"\n")
        except OSError:
            return ""
        return digest.hexdigest()


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


lead(Bash)
