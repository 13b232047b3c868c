"""Traffic of our own between hosts of a lab: no program but Python is needed.

ping(a, "10.0.0.2")                      round trips, loss, what ICMP said
Responder(b); tcp_echo(a, "10.0.0.2")    connections and datagrams with every byte compared
throughput(a, b, "10.0.0.2")             TCP bulk transfer
delivery(a, b, "10.0.0.2")               loss, order and damage of datagrams
Beat(a, b, "10.0.0.2")                   datagrams at a steady rate: what is lost, for how long nothing came
path_mtu(a, "10.0.0.2")                  the largest packet that was carried
traceroute(a, "10.0.0.2")                the routers on the way
"""

from engine.lab.traffic.beat import Beat
from engine.lab.traffic.datagrams import Delivery, delivery
from engine.lab.traffic.echo import Responder, tcp_echo, udp_echo
from engine.lab.traffic.errors import NetworkError, TrafficError
from engine.lab.traffic.path import Hop, path_mtu, traceroute
from engine.lab.traffic.ping import Ping, ping
from engine.lab.traffic.stream import Throughput, throughput

__all__ = [
    "Beat",
    "Delivery",
    "Hop",
    "NetworkError",
    "Ping",
    "Responder",
    "Throughput",
    "TrafficError",
    "delivery",
    "path_mtu",
    "ping",
    "tcp_echo",
    "throughput",
    "traceroute",
    "udp_echo",
]
