# TypeScript: types are taken off and the rest is JavaScript. `node_session.py` stands in front.
#
# By node itself, from version 22.13 on, else by the compiler, where a package manager has put it.

TYPESCRIPT_PLACES = (
    "/usr/share/nodejs/typescript",
    "/usr/lib/node_modules/typescript",
    "/usr/local/lib/node_modules/typescript",
)


class TypeScript(Node):
    @property
    def TYPESCRIPT(self):
        node = shutil.which("node")
        beside = os.path.join(os.path.dirname(os.path.dirname(node)), "lib/node_modules/typescript")
        return next((place for place in (beside, *TYPESCRIPT_PLACES) if os.path.isdir(place)), "")


lead(TypeScript)
