"""What a network can learn here: telling people apart, or naming classes."""
