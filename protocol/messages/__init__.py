"""Every message of the wire, one frozen model each."""
