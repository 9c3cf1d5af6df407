"""What the journal decides, pure: no clock, no randomness, no input or output."""
