"""Looking at a running node: counters, drops, routes, peers, pods."""
