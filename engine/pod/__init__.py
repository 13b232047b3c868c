"""Attaching pods and the host itself: TUN devices, in whose namespace they stand, and their adoption."""
