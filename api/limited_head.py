"""How requests are read from the wire: by httptools, and no head of a request without end."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LIMIT_BYTES = 16 * 1024
"""Of the parts of a head that come after the first: more is kept in memory for nobody."""


class LimitedHead(HttpToolsProtocol):
    """Uvicorn's, which by itself reads lines of a head, and waits for more, as long as they come."""

    _is_in_head = False
    _head_bytes = 0

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        was_in_head = self._is_in_head
        super().data_received(data)
        if was_in_head and self._is_in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > LIMIT_BYTES:
                self.logger.warning("A request’s head is too long.")
                self.send_400_response("The head of the request is too long.")
