"""Maxima of the wire, each with its reason. What a device may use of itself is configuration."""

from __future__ import annotations

WIRE_VERSION = 1
"""First element of every frame. Within a version only optional fields and new kinds are added."""

FRAME_BYTES_DEFAULT = 64 * 1024
"""What a frame may weigh unless its kind says otherwise: one Noise message."""

FRAME_BYTES_MAX = 1024 * 1024
"""No kind may ask for more: one frame must not hold up the others of its stream for long (9 ms at
the 112 MB/s measured over libp2p)."""

GOSSIP_BYTES_MAX = 32 * 1024
"""Telemetry is a few hundred bytes; py-libp2p forwards every message several times."""

DEPTH_MAX = 12
"""Nesting of arrays and maps in a body; our deepest message has five."""

PROMPT_BYTES_MAX = 256 * 1024
"""A longer input is context: it goes by hash and lands in a variable, not in a message."""

SCHEMA_BYTES_MAX = 24 * 1024
"""The shape of an answer: a model reads it, too."""

CONTENT_CHUNK_BYTES = 512 * 1024
"""One reply of the content conversation."""

CONTENT_BYTES_MAX = 256 * 1024 * 1024
"""One blob. Contexts of 100 MB are promised."""

OUTPUT_CHARS_SHOWN = 8192
"""What of a cell's output enters the message window, head and tail; the rest is kept by hash."""

CODE_BYTES_MAX = 256 * 1024
"""One cell."""

TEXT_BYTES_MAX = 384 * 1024
"""Model replies, answers and folded texts inside a frame; longer ones go by hash."""

INPUTS_MAX = 256
"""Context files of one task."""

ARGUMENTS_MAX = 128
"""Words behind the name of a program."""

ARGUMENT_BYTES_MAX = 2048
"""One of them: all together fill a quarter of a frame."""

WORK_FILES_MAX = 64
"""Files that a program is given, or leaves."""

WORK_FILE_CHARS_MAX = 255
"""The path of one, below the working folder."""

MEMBERS_MAX = 256
"""Peers named in one message."""

CLAIMS_MAX = 16
"""Claims about members that ride on one probe; a sender puts in 9 at most."""

ROWS_MAX = 1024
"""Claims in one comparison of tables: 120 bytes each, at most."""

ADDRESSES_MAX = 16
"""Addresses of one peer."""

IN_FLIGHT_MAX = 256
"""Requests at a time on one stream; more are refused `busy`."""
