# The bridge for every language: commands in the PATH of a session that ask the host, and print what it
# says. `channel.py` and `limiting.py` stand in front, `leading.py` behind.
#
# A command puts its question into a folder, writes that folder's path as one line into a pipe with a
# name, and waits on a pipe of its own. No socket: not every sandbox has them.

COMMAND_IDS = 1 << 40  # above those of an interpreter that asks by itself
CALLS_MAX = 4096
ANSWER_CHARS_MAX = 384 * 1024
KINDS = {
    "llm_query": "llm",
    "llm_query_batched": "llm",
    "rlm_query": "rlm",
    "rlm_query_batched": "rlm",
    "unfold": "unfold",
    "find_folds": "find",
    "folded_history": "history",
    "budget": "budget",
}

ASK = r"""#!/bin/sh
# llm_query [-m MODEL] [PROMPT...]           one question: the words, or else standard input
# llm_query_batched [-m MODEL] [-z] [PROMPT...]
#                                            each word is a question, or else each line of standard
#                                            input; answers in order, -z: each ends with a zero byte
# rlm_query, rlm_query_batched               the same, each question in a session of its own
# unfold HANDLE[:FROM], folded_history       what was folded away; of a long text a piece
# find_folds QUESTION...                     the folds nearest to a question, as JSON
# budget                                     what is left of calls, tokens and seconds
name=${0##*/} model= end='\n'
while getopts m:z option; do
  case $option in
    m) model=$OPTARG ;;
    z) end='\0' ;;
    *) sed -n '2,/^name/s/^# //p' "$0" >&2; exit 2 ;;
  esac
done
shift $((OPTIND - 1))
dir=$(mktemp -d "$KOWALSKI_ASK/q.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
count=0
batched= bare=
case $name in *_batched) batched=yes ;; folded_history | budget) bare=yes ;; esac
if [ "$batched" ]; then
  if [ $# -gt 0 ]; then
    for prompt; do count=$((count + 1)); printf %s "$prompt" >"$dir/$count"; done
  else
    while IFS= read -r prompt || [ -n "$prompt" ]; do
      count=$((count + 1)); printf %s "$prompt" >"$dir/$count"
    done
  fi
  [ $count -gt 0 ] || exit 0
elif [ $# -gt 0 ] || [ "$bare" ]; then
  count=1; printf %s "$*" >"$dir/1"
else
  count=1; cat >"$dir/1"
fi
printf '%s\n%s\n%s\n' "$name" "$count" "$model" >"$dir/question"
# Opened before anybody can write to it.
mkfifo "$dir/reply" && exec 3<>"$dir/reply" && printf '%s\n' "$dir" >"$KOWALSKI_ASK/pipe" && read -r _ <&3
status=0 number=1
while [ $number -le $count ]; do
  if [ -e "$dir/$number.text" ]; then
    # In one piece: others may write to the same place.
    case $name in unfold | folded_history | budget) ;; *) printf "$end" >>"$dir/$number.text" ;; esac
    cat "$dir/$number.text"
  else
    status=1
    { printf 'LLMError: '; cat "$dir/$number.error" 2>/dev/null || printf 'no answer'; echo; } >&2
    [ "$batched" ] && printf "$end"
  fi
  number=$((number + 1))
done
exit $status
"""

CONTEXT = r"""#!/bin/sh
# context          the task's data, where it is one input; their names, where they are several
# context NAME     one of them
# context -p NAME  the path of its file
path=; [ "$1" = -p ] && { path=yes; shift; }
list=$KOWALSKI_ASK/inputs
count=$(wc -l <"$list")
if [ $# -eq 0 ] && [ "$count" -eq 1 ]; then
  file=$(cut -f 2- "$list")
elif [ $# -eq 0 ]; then
  exec cut -f 1 "$list"
else
  file=$(awk -F '\t' -v name="$1" '$1 == name { print $2; exit }' "$list")
  [ -n "$file" ] || { echo "there is no input $1; there are:" >&2; cut -f 1 "$list" >&2; exit 1; }
fi
if [ -n "$path" ]; then printf '%s\n' "$file"; else exec cat "$file"; fi
"""

FINAL = r"""#!/bin/sh
# FINAL TEXT...    the answer, and the session is ready; without words: standard input
if [ $# -gt 0 ]; then printf %s "$*"; else cat; fi >"$KOWALSKI_ASK/final"
"""


class Commands:
    """Folder, pipe and programs; answers arrive by number."""

    def __init__(self, folder, channel):
        self._folder = folder
        self._channel = channel
        self._next = COMMAND_IDS
        self._waiting = {}
        self._received = b""
        programs = os.path.join(folder, "bin")
        os.makedirs(programs)
        self._write(os.path.join(programs, "ask"), ASK)
        for name in KINDS:
            os.symlink("ask", os.path.join(programs, name))
        self._write(os.path.join(programs, "context"), CONTEXT)
        self._write(os.path.join(programs, "FINAL"), FINAL)
        open(os.path.join(folder, "inputs"), "w").close()
        pipe = os.path.join(folder, "pipe")
        os.mkfifo(pipe)
        # Both ends are ours as well, so that it never ends.
        self.fd = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        os.environ["KOWALSKI_ASK"] = folder
        os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"

    def _write(self, path, text):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o755)
        with open(fd, "w") as file:
            file.write(text)

    def open(self, message):
        with open(os.path.join(self._folder, "inputs"), "w") as file:
            for name, path in message["inputs"].items():
                file.write(f"{name}\t{path}\n")

    def ask(self):
        """Pass on what has been asked, after `fd` became readable."""
        *lines, self._received = (self._received + os.read(self.fd, 1 << 16)).split(b"\n")
        for line in lines:
            folder = os.fsdecode(line)
            try:
                self._ask(folder)
            except (OSError, ValueError, KeyError):
                self._wake(folder)  # whatever it was, it is not there any more

    def _ask(self, folder):
        with open(f"{folder}/question", encoding="utf-8", errors="replace") as file:
            name, count, model = file.read().split("\n")[:3]
        if int(count) > CALLS_MAX:
            raise ValueError(count)
        prompts = []
        for number in range(1, int(count) + 1):
            with open(f"{folder}/{number}", encoding="utf-8", errors="replace") as file:
                prompts.append(file.read())
        calls = [{"kind": KINDS[name], "prompt": text, "model": model or None} for text in prompts]
        self._next += 1
        try:
            self._channel.send({"op": "calls", "id": self._next, "calls": calls})
        except FrameTooLongError as error:
            self._put(folder, [{"error": str(error)}] * len(calls))
        else:
            self._waiting[self._next] = folder

    def answered(self, message):
        """Whether it was asked from here."""
        folder = self._waiting.pop(message["id"], None)
        if folder is not None:
            self._put(folder, message["results"])
        return folder is not None

    def _put(self, folder, results):
        try:
            for number, result in enumerate(results, 1):
                kind = "text" if result.get("text") is not None else "error"
                with open(f"{folder}/{number}.{kind}", "w", errors="replace") as file:
                    file.write(result[kind] or "")
        except OSError:
            pass  # who asked has been interrupted, and has cleaned up
        self._wake(folder)

    def _wake(self, folder):
        try:
            fd = os.open(f"{folder}/reply", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return
        try:
            os.write(fd, b"\n")
        except OSError:
            pass
        finally:
            os.close(fd)

    def answer(self):
        """What FINAL was told since the last cell, if it was."""
        path = os.path.join(self._folder, "final")
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
            os.unlink(path)
        except OSError:
            return {}
        return {"answer_content": cut(text, ANSWER_CHARS_MAX), "answer_is_ready": True}
