"""A DINOv2 tower out of an ONNX graph that torch exported from transformers' ``Dinov2Model``.

The exporter keeps the names of vectors and embeddings, and folds two things: matrices are transposed and named by
number, so that the node that uses one says whose it is; and the positions are cut into CLS and patches. Both are undone
by moving numbers. Nothing of the graph is run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from lightning_m2pt.errors import BadInputError, EnvironmentFailure

PREFIX = "backbone."
"""What the graph calls the tower; behind it are names of transformers."""
POSITIONS = "embeddings.position_embeddings"


def dinov2_tensors(path: Path) -> dict[str, Tensor]:
    """Returns a tower's tensors under the names of transformers' published files, as they are stored.

    Args:
        path: The graph, whose weights are inside it.

    Raises:
        BadInputError: If it is no ONNX file, or holds no such tower.
        EnvironmentFailure: If the package that reads such files is not installed.
    """
    graph = read_graph(path)
    stored = {each.name: each for each in graph.initializer}
    tensors = {name.removeprefix(PREFIX): to_tensor(each) for name, each in stored.items() if name.startswith(PREFIX)}
    for node in graph.node:
        if node.op_type == "MatMul" and node.name.startswith("/backbone/"):
            matrices = [name for name in node.input if name in stored]
            if len(matrices) == 1:
                owner = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
                tensors[f"{owner}.weight"] = to_tensor(stored[matrices[0]]).T.contiguous()
    tensors[POSITIONS] = positions(graph, stored, path)
    tensors["embeddings.mask_token"] = torch.zeros(1, tensors[POSITIONS].shape[-1])  # never read: nothing is masked
    return tensors


def read_graph(path: Path) -> Any:  # noqa: ANN401  (onnx has its own message types)
    """Reads an ONNX file.

    Raises:
        BadInputError: If it is none.
        EnvironmentFailure: If the package that reads it is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise EnvironmentFailure(
            f"onnx cannot be imported ({error})",
            where=str(path.name),
            expected="the package that reads ONNX files",
            hint="pip install -c constraints.txt -e '.[real]'",
        ) from error
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except DecodeError as error:
        raise BadInputError("this is no ONNX file", where=str(path), expected="a graph that torch exported") from error
    return graph


def to_tensor(stored: Any) -> Tensor:  # noqa: ANN401  (a message of onnx)
    """Returns a stored tensor's numbers."""
    from onnx import numpy_helper

    return torch.from_numpy(numpy.array(numpy_helper.to_array(stored)))


def positions(graph: Any, stored: Mapping[str, Any], path: Path) -> Tensor:  # noqa: ANN401
    """Returns (1, 1 + N, D): the position of CLS, and those of N patches, which the graph interpolates.

    Raises:
        BadInputError: If the graph does not hold one of each.
    """
    found = {}
    for node in graph.node:
        if node.name.startswith("/backbone/embeddings/") and node.op_type in ("Concat", "Reshape"):
            for name in node.input:
                shape = tuple(stored[name].dims) if name in stored and not name.startswith(PREFIX) else ()
                if len(shape) == 3:
                    found["cls" if shape[1] == 1 else "patches"] = to_tensor(stored[name])
    if set(found) != {"cls", "patches"}:
        raise BadInputError("it holds no positions of a DINOv2 tower", where=str(path), expected="CLS and patches")
    return torch.cat([found["cls"], found["patches"]], dim=1)
