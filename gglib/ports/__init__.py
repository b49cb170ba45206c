"""What the core needs from outside, one abstract class per file."""
