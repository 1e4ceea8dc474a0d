"""What peers say: ids, limits, errors, frames and messages. No I/O, no clock."""
