"""What a command needs while it runs: signals, settings, tracking, and state to resume from."""
