"""Count FLOPs, price them, and measure seconds and memory."""
