# Rust. `compiling.py` stands in front.


class Rust(Compiled):
    VERSION = ("rustc", "--version")
    IS_READ = False

    def source_of(self, code):
        if re.search(r"\bfn\s+main\s*\(", code):
            return code
        # Attributes and imports stay outside: `#![...]` must be first, and `use` reads best there.
        head = re.match(r"(?:\s*(?:#!\[[^\n]*|use\s[^;]*;|//[^\n]*)\s*\n?)*", code).group()
        body = code[len(head) :]
        return f"{head}fn main() -> Result<(), Box<dyn std::error::Error>> {{\n{body}\nOk(())\n}}\n"

    def build(self, folder, source):
        with open(f"{folder}/main.rs", "w", encoding="utf-8", errors="replace") as file:
            file.write(source)
        yield ["rustc", "--edition=2021", "-O", "--cap-lints=allow", "-o", "program", "main.rs"]

    def finish(self, folder):
        return f"{folder}/program"

    def command(self, program, message):
        return [program, *message.get("arguments", ())]


lead(Rust)
