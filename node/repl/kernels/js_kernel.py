# JavaScript. `node_session.py` stands in front.

lead(Node)
