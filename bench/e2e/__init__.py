"""End to end: Towpath beside the kernel and other tunnels, in turn, on one underlay.

python -m bench.e2e --help
"""
