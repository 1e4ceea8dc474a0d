# Java. `compiling.py` stands in front.

import zipfile

# One processor is enough for a cell, and the second compiler costs more than it brings.
OPTIONS = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xss1m", "-XX:-UsePerfData"]
HEAP = "-Xmx512m"


class Java(Compiled):
    VERSION = ("javac", "-version")
    IS_READ = True

    def source_of(self, code):
        if re.search(r"\b(class|interface|enum|record)\s+\w+", code):
            return code
        imports = re.match(r"(?:\s*(?:import\s[^;]*;|//[^\n]*)\s*\n?)*", code).group()
        main = "public class Main {\npublic static void main(String[] args) throws Exception {\n"
        return f"{imports}{main}{code[len(imports) :]}\n}}\n}}\n"

    def build(self, folder, source):
        # A public class wants a file of its name.
        named = re.search(r"\bpublic\s+(?:\w+\s+)*(?:class|interface|enum|record)\s+(\w+)", source)
        path = f"{folder}/{named.group(1) if named else 'Main'}.java"
        with open(path, "w", encoding="utf-8", errors="replace") as file:
            file.write(source)
        os.mkdir(f"{folder}/classes")
        options = [f"-J{option}" for option in OPTIONS]
        yield [
            "javac",
            *options,
            "-J-Xmx512m",
            "-encoding",
            "UTF-8",
            "-proc:none",
            "-nowarn",
            "-d",
            "classes",
            os.path.basename(path),
        ]

    def finish(self, folder):
        """An archive of all classes, which names the one that has a main."""
        jar = f"{folder}/program.jar"
        with zipfile.ZipFile(jar, "w", zipfile.ZIP_STORED) as archive:
            found = None
            for root, _, names in sorted(os.walk(f"{folder}/classes")):
                for name in sorted(names):
                    path = os.path.join(root, name)
                    place = os.path.relpath(path, f"{folder}/classes")
                    archive.write(path, place)
                    with open(path, "rb") as file:
                        content = file.read()
                    if (
                        b"\x00\x04main\x01\x00\x16([Ljava/lang/String;)V" in content
                        and found is None
                    ):
                        found = place.removesuffix(".class").replace(os.sep, ".")
            if found is not None:
                archive.writestr("META-INF/MANIFEST.MF", f"Main-Class: {found}\n")
        return found and jar

    def command(self, program, message):
        return ["java", *OPTIONS, HEAP, "-jar", program, *message.get("arguments", ())]


lead(Java)
