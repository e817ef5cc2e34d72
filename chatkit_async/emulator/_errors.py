"""How the service says no."""

from __future__ import annotations


class ApiError(Exception):
    """The request is refused: becomes an error reply."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
