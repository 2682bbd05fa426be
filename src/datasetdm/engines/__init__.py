"""Where the work is done. `local` is this machine."""
