"""How a question becomes steps: the pure half of the Recursive Language Model loop."""
