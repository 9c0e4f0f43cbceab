"""A request against what the model takes and gives; the words of a refusal are Triton's where it has some."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from toolchain.checkpoint.tokenize import Tokens
from toolchain.data.rows import Text
from toolchain.serve.limits import Limits
from toolchain.serve.protocol import InferRequest, Reason, RefusedError, Tensor
from toolchain.tensors import TEXT_INPUTS

OUTPUTS = ("LABEL", "SCORE", "LOGITS")
INTEGERS = ("INT64", "INT32")
VERSION = "1"

SHOWN_CHARACTERS = 64
"""Of a name that a client made up: messages travel in headers, which are short."""

BATCH_NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to "
    "each input shape."
)


def check_model(name: str, model: str, version: str) -> None:
    """Refuse what is not the model `name` in its one version.

    Raises:
        RefusedError: another name or version (NOT_FOUND), or a version that is no number (INVALID).
    """
    if model != name:
        raise RefusedError(Reason.NOT_FOUND, f"Request for unknown model: '{shown(model)}' is not found")
    if version in ("", VERSION):
        return
    if not (version.isascii() and version.removeprefix("-").isdecimal()):
        raise RefusedError(
            Reason.INVALID,
            f"failed to get model version from specified version string '{shown(version)}' (details: stol), "
            "version should be an integral value > 0",
        )
    raise RefusedError(Reason.NOT_FOUND, f"Request for unknown model: '{name}' version {shown(version)} is not found")


def check_statistics(name: str, model: str, version: str) -> None:
    """Refuse as check_model does, but what is not found as Triton does where its statistics are asked for.

    Raises:
        RefusedError: another name or version (INVALID).
    """
    try:
        check_model(name, model, version)
    except RefusedError as refused:
        if refused.reason is not Reason.NOT_FOUND:
            raise
        what = f"version is not available for model '{name}'" if model == name else f"'{shown(model)}' is not available"
        raise RefusedError(Reason.INVALID, f"requested model {what}") from refused


def shown(name: str) -> str:
    """Return a name as a message shows it: not longer than a header holds."""
    return name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}..."


@dataclass(frozen=True)
class Checks:
    """What one model takes: so many `texts` a row, or these columns of ids below their `sizes`."""

    name: str
    texts: int
    sizes: dict[str, int]
    """Token input -> number of its values: the vocabulary, 2 for the mask, the token types."""
    max_length: int
    pad_values: dict[str, int]
    limits: Limits

    def outputs(self, request: InferRequest) -> tuple[str, ...]:
        """Return the outputs that were asked for, each once.

        Raises:
            RefusedError: one that the model does not give, or the classes of one that is text.
        """
        for name in request.outputs:
            if name not in OUTPUTS:
                raise RefusedError(
                    Reason.INVALID, f"unexpected inference output '{shown(name)}' for model '{self.name}'"
                )
        if "LABEL" in request.classes:
            raise RefusedError(
                Reason.INVALID, "class result not available for output 'LABEL' due to unsupported type 'BYTES'"
            )
        return tuple(dict.fromkeys(request.outputs)) or OUTPUTS

    def rows(self, request: InferRequest) -> list[Text] | Tokens:
        """Return the rows of a request: its texts, or the ids that it brings, without their padding.

        Raises:
            RefusedError: they are not what the model takes.
        """
        refuse = _Refusal(request.id)
        given: dict[str, Tensor] = {}
        for tensor in request.inputs:
            if tensor.name in given:
                raise refuse(f"input '{shown(tensor.name)}' already exists in request")
            given[tensor.name] = tensor
        wanted = self._wanted(given)
        self._check_names(given, wanted, refuse)
        ordered = [given[name] for name in wanted]
        if wanted[0] in TEXT_INPUTS:
            self._check_shapes(ordered, ("BYTES",), "[-1,1]", refuse)
            return self._texts(ordered, refuse)
        self._check_shapes(ordered, INTEGERS, "[-1,-1]", refuse)
        return self._tokens(ordered, refuse)

    def check_texts(self, texts: list[Text]) -> None:
        """Refuse texts that are too many, too long, or not so many a row as the model takes.

        Raises:
            RefusedError: one of these.
        """
        self._check_rows(len(texts), _Refusal(""))
        for text in texts:
            if len(text) != self.texts:
                raise RefusedError(
                    Reason.INVALID, f"a row of {len(text)} texts for model '{self.name}', which takes {self.texts}"
                )
            self._check_lengths(text)

    def _wanted(self, given: Iterable[str]) -> tuple[str, ...]:
        """Ids are meant where an input of ids is there and none of text."""
        names = set(given)
        ids = names & set(self.sizes) and not names & set(TEXT_INPUTS)
        return tuple(self.sizes) if ids else TEXT_INPUTS[: self.texts]

    def _check_names(self, given: dict[str, Tensor], wanted: tuple[str, ...], refuse: "_Refusal") -> None:
        if len(given) != len(wanted):
            missing = [name for name in wanted if name not in given]
            raise refuse(
                f"expected {len(wanted)} inputs but got {len(given)} inputs for model '{self.name}'. "
                f"Got input(s) {_listed(given)}, but missing required input(s) {_listed(missing)}. "
                "Please provide all required input(s)."
            )
        for name in given:
            if name not in wanted:
                raise RefusedError(
                    Reason.INVALID, f"unexpected inference input '{shown(name)}' for model '{self.name}'"
                )

    def _check_shapes(self, tensors: list[Tensor], types: tuple[str, ...], shape: str, refuse: "_Refusal") -> None:
        for tensor in tensors:
            found = tensor.array.shape
            if tensor.datatype not in types:
                raise refuse(
                    f"inference input '{tensor.name}' data-type is '{shown(tensor.datatype)}', "
                    f"but model '{self.name}' expects '{types[0]}'"
                )
            if len(found) != 2 or (types[0] == "BYTES" and found[1] != 1):
                raise refuse(self._unexpected(tensor, shape))
        first = tensors[0].array.shape
        for tensor in tensors[1:]:
            if tensor.array.shape[0] != first[0]:
                raise refuse(f"input '{tensor.name}' batch size does not match other inputs for '{self.name}'")
            if tensor.array.shape != first:
                raise refuse(self._unexpected(tensor, _shape(first)))
        if types[0] == "BYTES" and not first[0]:
            raise refuse(
                f"expected 1 string elements for inference input '{tensors[0].name}' for model '{self.name}', got 0"
            )
        self._check_rows(first[0], refuse)

    def _unexpected(self, tensor: Tensor, expected: str) -> str:
        return (
            f"unexpected shape for input '{tensor.name}' for model '{self.name}'. "
            f"Expected {expected}, got {_shape(tensor.array.shape)}. {BATCH_NOTE}"
        )

    def _check_rows(self, rows: int, refuse: "_Refusal") -> None:
        if rows < 1:
            raise refuse(f"inference request batch-size must be >= 1 for '{self.name}'")
        if rows > self.limits.max_batch:
            raise refuse(f"inference request batch-size must be <= {self.limits.max_batch} for '{self.name}'")

    def _texts(self, tensors: list[Tensor], refuse: "_Refusal") -> list[Text]:
        columns = []
        for tensor in tensors:
            try:
                columns.append([value.decode() for value in tensor.array[:, 0].tolist()])
            except UnicodeDecodeError:
                raise refuse(f"{tensor.name} is not UTF-8") from None
        texts = list(zip(*columns, strict=True))
        for text in texts:
            self._check_lengths(text)
        return texts

    def _check_lengths(self, text: Text) -> None:
        for part in text:
            if len(part) > self.limits.max_characters:
                raise RefusedError(
                    Reason.TOO_LARGE,
                    f"a text of {len(part)} characters exceeds the maximum allowed value of "
                    f"{self.limits.max_characters} for model '{self.name}'",
                )

    def _tokens(self, tensors: list[Tensor], refuse: "_Refusal") -> Tokens:
        length = tensors[0].array.shape[1]
        if length > self.max_length:
            raise refuse(
                f"input '{tensors[0].name}' has {length} tokens a row, more than the {self.max_length} of model "
                f"'{self.name}'"
            )
        for tensor in tensors:
            self._check_range(tensor, refuse)
        mask = next(tensor.array for tensor in tensors if tensor.name == "attention_mask")
        lengths = mask.sum(axis=1)
        # Such rows alone mean the same to every engine. One without a token has no answer that would be right.
        if not lengths.all() or (mask != (np.arange(length) < lengths[:, None])).any():
            raise refuse(
                f"input 'attention_mask' has a row that is not 1s and then 0s, with one 1 or more, for model "
                f"'{self.name}'"
            )
        ends = lengths.tolist()
        columns = {one.name: [row[:end] for row, end in zip(one.array.tolist(), ends, strict=True)] for one in tensors}
        return Tokens(columns, self.pad_values)

    def _check_range(self, tensor: Tensor, refuse: "_Refusal") -> None:
        size, values = self.sizes[tensor.name], tensor.array
        wrong = (values < 0) | (values >= size)
        if wrong.any():
            raise refuse(
                f"input '{tensor.name}' has the value {int(values[wrong][0])}, out of range [0,{size - 1}] of model "
                f"'{self.name}'"
            )


class _Refusal:
    """Makes refusals of one request, which Triton names in brackets."""

    def __init__(self, request_id: str) -> None:
        self._id = shown(request_id) or "<id_unknown>"

    def __call__(self, message: str) -> RefusedError:
        return RefusedError(Reason.INVALID, f"[request id: {self._id}] {message}")


def _listed(names: Iterable[str]) -> str:
    return "[" + ",".join(f"'{shown(name)}'" for name in names) + "]"


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"
