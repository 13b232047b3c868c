"""One daemon follows another without a packet lost: what they say to each other, and who forwards when."""
