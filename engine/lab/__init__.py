"""Networks in namespaces: hosts, links, pods and traffic, for the demo, the tests and the benchmarks.

with Lab() as lab:
    a, b = lab.host("a"), lab.host("b")
    link = lab.link(a, b, mtu=9000)
    link.left.address("10.0.0.1/24")
    link.right.address("10.0.0.2/24")
    assert ping(a, "10.0.0.2").lost == 0
"""

from engine.lab.capture import Capture, Frame
from engine.lab.host import Host, Interface
from engine.lab.kernel import KernelVxlan, add_pod, add_vxlan
from engine.lab.lab import Lab, Link, Switch
from engine.lab.offload import Profile
from engine.lab.process import Process
from engine.lab.waiting import DeadlineError, wait_until

__all__ = [
    "Capture",
    "DeadlineError",
    "Frame",
    "Host",
    "Interface",
    "KernelVxlan",
    "Lab",
    "Link",
    "Process",
    "Profile",
    "Switch",
    "add_pod",
    "add_vxlan",
    "wait_until",
]
