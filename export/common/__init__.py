"""What all commands share: settings, flags and errors."""
