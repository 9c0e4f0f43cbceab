"""A body that is JSON with the bytes of tensors behind it: Triton's extension for binary tensors.

The header `Inference-Header-Content-Length` says where the JSON ends; each tensor's `binary_data_size` how many of the
bytes behind it are its own, in the order of the tensors.
"""

from toolchain.serve.protocol import Reason, RefusedError

HEADER = b"inference-header-content-length"


class Blobs:
    """The bytes behind the JSON, taken from the front; a view, so nothing is copied."""

    def __init__(self, data: memoryview, model: str) -> None:
        self.data, self.model, self.at = data, model, 0

    def take(self, name: str, size: int) -> memoryview:
        """Return the next bytes, which are the input's.

        Raises:
            RefusedError: there are not so many.
        """
        end = self.at + size
        if end > len(self.data):
            missing = end - len(self.data)
            what = f"unexpected size for input '{name}', expecting {missing} additional bytes for model '{self.model}'"
            raise RefusedError(Reason.INVALID, what)
        taken, self.at = self.data[self.at : end], end
        return taken

    def finish(self) -> None:
        """Refuse bytes that belong to no input.

        Raises:
            RefusedError: there are some.
        """
        if self.at != len(self.data):
            raise RefusedError(Reason.INVALID, f"unexpected additional input data for model '{self.model}'")


def split(body: bytes, length: bytes | None, *, model: str) -> tuple[bytes | memoryview, Blobs]:
    """Return the JSON of a body and the bytes behind it; without the header's `length`, all of it is JSON.

    Raises:
        RefusedError: `length` is no number of bytes within the body.
    """
    if length is None:
        return body, Blobs(memoryview(b""), model)
    # 20 digits are more than any body's; int() of a million would take seconds.
    size = int(length) if length.isdigit() and len(length) < 20 else 0
    if not 0 < size <= len(body):
        got = length[:20].decode("ascii", "replace")
        what = f"inference header size should be in range (0, {len(body)}), got: {got}"
        raise RefusedError(Reason.INVALID, what)
    view = memoryview(body)
    return view[:size], Blobs(view[size:], model)
