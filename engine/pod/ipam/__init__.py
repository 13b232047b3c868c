"""Gives pods their addresses: pools cut into blocks, blocks owned by nodes, and a store that remembers.

Owns: nothing itself; block.py is one block, pool.py where blocks come from,
allocator.py who gets what, audit.py what does not fit together.
"""
