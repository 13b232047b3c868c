from typing import TypeAlias

from numpy import uint8, uint32, uint64
from numpy.typing import NDArray

Addresses: TypeAlias = NDArray[uint32] | NDArray[uint64] | NDArray[uint8]
