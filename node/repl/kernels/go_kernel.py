# Go. `compiling.py` stands in front.

import tarfile


class Go(Compiled):
    VERSION = ("go", "version")
    IS_READ = False

    def __init__(self, channel):
        super().__init__(channel)
        os.environ.update(
            GOCACHE=os.path.join(self.folder, "go-build"),
            GOPATH=os.path.join(self.folder, "go"),
            GOENV="off",
            GO111MODULE="off",
            GOPROXY="off",
            GOTOOLCHAIN="local",
            GOTELEMETRY="off",
            CGO_ENABLED="0",
        )

    def use_library(self, path):
        if path is not None and not os.path.exists(os.environ["GOCACHE"]):
            with tarfile.open(path) as archive:
                archive.extractall(os.environ["GOCACHE"])

    def library(self):
        path = os.path.join(self.folder, "library.tar")
        with tarfile.open(path, "w") as archive:
            archive.add(os.environ["GOCACHE"], ".")
        return path

    def source_of(self, code):
        if re.search(r"^\s*package\s", code, re.MULTILINE):
            return code
        if re.search(r"\bfunc\s+main\s*\(", code):
            return f"package main\n{code}"
        imports = re.match(
            r"(?:\s*(?:import\s+(?:\([^)]*\)|\"[^\"]*\")|//[^\n]*)\s*\n?)*", code
        ).group()
        return f"package main\n{imports}func main() {{\n{code[len(imports) :]}\n}}\n"

    def build(self, folder, source):
        with open(f"{folder}/main.go", "w", encoding="utf-8", errors="replace") as file:
            file.write(source)
        yield ["go", "build", "-o", "program", "main.go"]

    def finish(self, folder):
        return f"{folder}/program"

    def command(self, program, message):
        return [program, *message.get("arguments", ())]


lead(Go)
