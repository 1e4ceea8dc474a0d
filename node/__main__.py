"""`python -m kowalski.node`: the program without its installed name."""

from kowalski.node.cli import main

main()
