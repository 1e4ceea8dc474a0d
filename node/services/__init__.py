"""Thin rooms: message to event, effect to message."""
