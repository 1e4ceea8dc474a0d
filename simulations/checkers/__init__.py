"""What must hold, watched from outside: each module hears the witness and names its invariants."""
