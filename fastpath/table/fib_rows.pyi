from typing import Literal

from numpy import uint32
from numpy.typing import NDArray

class Rows:
    @property
    def version(self) -> Literal[4, 6]: ...
    @property
    def n(self) -> int: ...
    @property
    def before(self) -> NDArray[uint32]: ...
