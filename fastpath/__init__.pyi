from fastpath.lpm import RouteTable as RouteTable
from fastpath.plane import Plane as Plane
from fastpath.table.policy import PolicyImage as PolicyImage
from fastpath.tally import Counters as Counters
from fastpath.tally import PortCounters as PortCounters
from fastpath.values import Address as Address
from fastpath.values import Adjacency as Adjacency
from fastpath.values import Deliver as Deliver
from fastpath.values import Encapsulate as Encapsulate
from fastpath.values import Encapsulation as Encapsulation
from fastpath.values import FlowSettings as FlowSettings
from fastpath.values import Prefix as Prefix
from fastpath.values import Reject as Reject
from fastpath.values import Spread as Spread
from fastpath.values import Tunnel as Tunnel

BUILD: str
